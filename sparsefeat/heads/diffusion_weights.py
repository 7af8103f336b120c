"""Published DiffusionNet weights."""

from __future__ import annotations

import os
import re

from torch import Tensor

from sparsefeat.errors import InputError
from sparsefeat.heads.diffusion import DiffusionNet, OutputsAt
from sparsefeat.io.torchfile import read_torch_file

# The same network under the names of a later code base for spectral matching.
_OTHER_NAMES = (
    (r"first_linear\.", "first_lin."),
    (r"last_linear\.", "last_lin."),
    (r"blocks\.(\d+)\.", r"block_\1."),
    (r"miniMLP_linear_", "miniMLP_mlp_layer_"),
)


def load_diffusionnet(path: str | os.PathLike, outputs_at: OutputsAt = "vertices") -> DiffusionNet:
    """A :class:`~sparsefeat.heads.diffusion.DiffusionNet` with the weights of a ``.pth`` file.

    Sizes are read off the weights. Where outputs were taken is not in such a file, nor is an activation
    after the last layer (segmentation networks were published with a log-softmax): scores come as they are.

    Args:
        path: of a state dictionary, alone or within a larger model (``feature_extractor.*``) or file.
        outputs_at: see :class:`~sparsefeat.heads.diffusion.DiffusionNet`.

    Returns:
        The network, float32, in evaluation mode.

    Raises:
        InputError: the file cannot be read, or holds no DiffusionNet or a damaged one.
    """
    weights = _network(read_torch_file(path), path)
    blocks = sorted(
        {int(match[1]) for key in weights if (match := re.match(r"block_(\d+)\.", key))}
    )
    layer = re.compile(r"block_0\.mlp\.miniMLP_mlp_layer_\d+\.weight")
    layers = sorted(key for key in weights if layer.fullmatch(key))
    if (
        blocks != list(range(len(blocks)))
        or not blocks
        or not layers
        or "last_lin.weight" not in weights
    ):
        raise InputError(f"{path}: not a DiffusionNet; its weights are {_some(weights)}")
    model = DiffusionNet(
        in_channels=weights["first_lin.weight"].shape[1],
        out_channels=weights["last_lin.weight"].shape[0],
        width=weights["first_lin.weight"].shape[0],
        blocks=len(blocks),
        hidden=[weights[key].shape[0] for key in layers[:-1]],
        outputs_at=outputs_at,
        gradients=any("gradient_features" in key for key in weights),
        rotations="block_0.gradient_features.A.weight" not in weights,
    )
    expected = {key: value.shape for key, value in model.state_dict().items()}
    found = {key: value.shape for key, value in weights.items()}
    wrong = sorted(
        key for key in expected.keys() | found.keys() if expected.get(key) != found.get(key)
    )
    if wrong:
        shape = {
            key: (tuple(found.get(key, ())), tuple(expected.get(key, ()))) for key in wrong[:3]
        }
        raise InputError(f"{path}: weights (found, expected) do not fit a DiffusionNet: {shape}")
    model.load_state_dict(weights)
    return model.eval()


def _network(content: object, path: str | os.PathLike) -> dict[str, Tensor]:
    """The tensors of the network in a file, whatever they are nested or named within."""
    flat: dict[str, Tensor] = {}
    _flatten(content, "", flat)
    for pattern, name in _OTHER_NAMES:
        flat = {re.sub(pattern, name, key): value for key, value in flat.items()}
    starts = [key[: -len("first_lin.weight")] for key in flat if key.endswith("first_lin.weight")]
    if len(starts) != 1:
        raise InputError(
            f"{path}: expected one DiffusionNet, found {len(starts)} among {_some(flat)}"
        )
    return {
        key[len(starts[0]) :]: value for key, value in flat.items() if key.startswith(starts[0])
    }


def _flatten(content: object, prefix: str, flat: dict[str, Tensor]) -> None:
    if isinstance(content, Tensor):
        flat[prefix[:-1]] = content
    elif isinstance(content, dict):
        for key, value in content.items():
            _flatten(value, f"{prefix}{key}.", flat)


def _some(weights: dict[str, Tensor]) -> str:
    return f"{', '.join(list(weights)[:4]) or 'none'}{', ...' if len(weights) > 4 else ''}"
