"""What the checkpoints of FCGF, DGR and PointContrast hold, in the terms of :mod:`sparsefeat.models`.

Their ``.pth`` files are dictionaries: the weights under ``state_dict`` (DGR keeps its feature network
there and its inlier network beside it), the configuration of the run under ``config``. Whatever the
configuration does not say, the weights' own shapes do.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sparsefeat.models import model_class, model_names
from sparsefeat.models.blocks import kernel_edge
from sparsefeat.models.res16unet import Res16UNet
from sparsefeat.models.unet import UNet
from sparsefeat.unpickle import Record

_STATE_KEYS = ("state_dict", "pretrained_weights", "model_state", "model_state_dict", "model")

# Where each value may stand, first choice first: DGR names its feature network's apart from its inlier
# network's; PointContrast groups them.
_FIELDS = {
    "name": ("feat_model", "model", "net.model"),
    "out_channels": ("feat_model_n_out", "model_n_out", "net.model_n_out"),
    "conv1_kernel_size": ("feat_conv1_kernel_size", "conv1_kernel_size", "net.conv1_kernel_size"),
    "normalize_feature": ("normalize_feature", "net.normalize_feature"),
    "bn_momentum": ("bn_momentum", "opt.bn_momentum", "optimizer.bn_momentum"),
    "voxel_size": ("voxel_size", "data.voxel_size"),
}


def find_state(content: Any, key: str | None = None) -> dict[str, Tensor]:
    """The weights in what a torch file held, by layer name; ``module.`` of DataParallel is taken off.

    Args:
        content: what :func:`sparsefeat.torchfile.read_torch_file` gave.
        key: where they are, with dots for nested dictionaries; None: the usual places.

    Raises:
        ValueError: there are none there; the message says where there are some.
    """
    if key is not None:
        found = _get(content, key)
        if not _is_state(found):
            raise ValueError(f"no weights under {key!r}; {_where_weights_are(content)}")
        return _without_prefix(found)
    if _is_state(content):
        return _without_prefix(content)
    for name in _STATE_KEYS:
        if isinstance(content, dict) and _is_state(content.get(name)):
            return _without_prefix(content[name])
    raise ValueError(f"no weights under any of {', '.join(_STATE_KEYS)}; {_where_weights_are(content)}")


def read_config(content: Any, state: Mapping[str, Tensor]) -> tuple[dict[str, Any], float | None]:
    """The arguments of :func:`sparsefeat.models.create_model`, and the voxel size in metres if it is known.

    Raises:
        ValueError: a network that is not ours, or a value of the configuration that cannot be one.
    """
    given = _released_fields(content.get("config") if isinstance(content, dict) else None)
    voxel_size = given.pop("voxel_size", None)
    if voxel_size is not None:
        voxel_size = check_voxel_size(voxel_size)
    if "name" in given and not getattr(model_class(given["name"]), "FINAL", True):
        given.pop("out_channels", None)  # FCGF ignores it there
    seen = infer_config(state, given.get("name"))
    if "normalize_feature" not in given:
        warnings.warn(
            "the checkpoint does not say whether its features are normalised; taking them to be, as the "
            "released ones are (normalize_feature=False says otherwise)",
            stacklevel=4,
        )
    return {**seen, "normalize_feature": True, **given}, voxel_size


def check_voxel_size(value: Any) -> float:
    """``value`` as a float, if it is a positive, finite number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value <= 0:
        raise ValueError(f"voxel_size: expected a positive number of metres, got {value!r}")
    return float(value)


def infer_config(state: Mapping[str, Tensor], name: str | None = None) -> dict[str, Any]:
    """Read a network's configuration off the names and shapes of its weights.

    Args:
        state: weights by layer name.
        name: the network, if known; otherwise the one that these widths belong to.

    Raises:
        ValueError: the layers are of no network that we have.
    """
    if "conv0p1s1.kernel" in state:
        return _infer_res16unet(state, name)
    if "conv1.kernel" in state and "conv1_tr.kernel" in state:
        return _infer_unet(state, name)
    raise ValueError(
        f"unknown network: its {len(state)} weights begin with {', '.join(list(state)[:3])}; expected "
        "the layers of a ResUNet or SimpleNet (conv1.kernel, norm1.bn.weight, ...) or of a Res16UNet "
        "(conv0p1s1.kernel, ...)"
    )


# --- finding things in nested dictionaries ---


def _is_state(value: Any) -> bool:
    return isinstance(value, dict) and bool(value) and all(
        isinstance(name, str) and isinstance(weights, Tensor) for name, weights in value.items()
    )  # fmt: skip


def _without_prefix(state: dict[str, Tensor]) -> dict[str, Tensor]:
    prefix = "module."
    if all(name.startswith(prefix) for name in state):
        return {name[len(prefix) :]: weights for name, weights in state.items()}
    return dict(state)


def _where_weights_are(content: Any) -> str:
    if not isinstance(content, dict):
        return f"the file holds a {type(content).__name__}"
    places = [
        ".".join(path) for path in _paths(content, 3) if path and _is_state(_get(content, ".".join(path)))
    ]
    if places:
        return f"there are weights under {', '.join(places)}"
    return f"its keys are {', '.join(repr(name) for name in list(content)[:10])}"


def _paths(content: Any, depth: int) -> list[tuple[str, ...]]:
    paths: list[tuple[str, ...]] = [()]
    if isinstance(content, dict) and depth:
        for name, value in content.items():
            if isinstance(name, str) and isinstance(value, dict):
                paths.extend((name, *rest) for rest in _paths(value, depth - 1))
    return paths


def _get(content: Any, key: str) -> Any:
    """The value at a dotted path, or None; through omegaconf's containers and nodes as well."""
    for part in key.split("."):
        content = _plain(content)
        if not isinstance(content, dict) or part not in content:
            return None
        content = content[part]
    return _plain(content)


def _plain(value: Any) -> Any:
    """What an omegaconf object holds: ``content`` and ``val`` up to version 1.4, ``_content`` and ``_val`` after."""
    if isinstance(value, Record) and value.kind.startswith("omegaconf."):
        for name in ("_content", "content", "_val", "val"):
            if name in value:
                return value[name]
        return None
    return value


def _released_fields(config: Any) -> dict[str, Any]:
    given = {}
    for field, places in _FIELDS.items():
        for place in places:
            value = _get(config, place) if config is not None else None
            if value is not None and not isinstance(value, dict):
                given[field] = value
                break
    return given


# --- reading shapes ---


def _shape(state: Mapping[str, Tensor], name: str) -> tuple[int, ...]:
    if name not in state:
        raise ValueError(f"unknown network: it has no {name}")
    return tuple(state[name].shape)


def _edge(state: Mapping[str, Tensor], name: str) -> int:
    shape = _shape(state, name)
    edge = kernel_edge(shape[0], 3) if len(shape) == 3 else 1
    if edge is None:
        raise ValueError(f"{name}: {shape[0]} cells are not the cube of a kernel size")
    return edge


def _norm_kind(state: Mapping[str, Tensor], layer: str) -> str:
    if f"{layer}.bn.weight" in state:
        return "BN"
    return "IN" if f"{layer}.weight" in state else "none"


def _infer_unet(state: Mapping[str, Tensor], name: str | None) -> dict[str, Any]:
    depth = 0
    while f"conv{depth + 2}.kernel" in state:
        depth += 1
    channels = [_shape(state, f"conv{level + 1}.kernel")[-1] for level in range(depth + 1)]
    tr_channels = [_shape(state, f"conv{level + 1}_tr.kernel")[-1] for level in range(depth + 1)]
    final = "final.kernel" if "final.kernel" in state else "conv1_tr.kernel"
    seen = {
        "in_channels": _shape(state, "conv1.kernel")[-2],
        "out_channels": _shape(state, final)[-1],
        "conv1_kernel_size": _edge(state, "conv1.kernel"),
        "depth": depth,
        "channels": channels,
        "tr_channels": tr_channels,
        "norm": _norm_kind(state, "norm1"),
        "block_norm": _norm_kind(state, "block1.norm1") if "block1.conv1.kernel" in state else None,
    }
    traits = (seen["block_norm"] is not None, final == "final.kernel", "norm1_tr.bn.weight" in state)

    def fits(model: type) -> bool:
        # SimpleNets differ in whether a last layer and a last norm exist, which is not an argument.
        own = (model.BLOCK_NORM is not None, model.FINAL, model.LAST_NORM and seen["norm"] == "BN")
        return own == traits or (own[:2] == traits[:2] and seen["norm"] != "BN")

    candidates = [model_class(known) for known in model_names()]
    candidates = [model for model in candidates if issubclass(model, UNet) and fits(model)]
    if name is None and not candidates:
        raise ValueError("unknown network: a U-net whose layers are those of no ResUNet or SimpleNet")

    def closeness(model: type) -> tuple[int, ...]:
        same_widths = list(model.CHANNELS[: depth + 1]) == channels
        same_widths &= not model.FINAL or list(model.TR_CHANNELS[: depth + 1]) == tr_channels
        same_norms = (model.NORM, model.BLOCK_NORM) == (seen["norm"], seen["block_norm"])
        return (same_widths and same_norms, same_widths, same_norms, model.DEPTH == depth)

    return {"name": name or max(candidates, key=closeness).__name__, **seen}


def _infer_res16unet(state: Mapping[str, Tensor], name: str | None) -> dict[str, Any]:
    depth = max((level for level in range(1, 5) if f"block{level}.0.conv1.kernel" in state), default=0)
    known = model_class(name or "Res16UNet34C")
    if not issubclass(known, Res16UNet):
        known = model_class("Res16UNet34C")
    planes, layers = list(known.PLANES), list(known.LAYERS)
    places = [*range(depth), *range(8 - depth, 8)]
    for place in places:
        first = f"block{place + 1}.0.conv1.kernel"
        planes[place] = _shape(state, first)[-1]
        layers[place] = 0
        while f"block{place + 1}.{layers[place]}.conv1.kernel" in state:
            layers[place] += 1

    def same(model: type) -> bool:
        return all(model.PLANES[p] == planes[p] and model.LAYERS[p] == layers[p] for p in places)

    models = [model_class(each) for each in model_names()]
    matching = [each.__name__ for each in models if issubclass(each, Res16UNet) and same(each)]
    chosen = name or ("Res16UNet34C" if "Res16UNet34C" in matching or not matching else matching[0])
    return {
        "name": chosen,
        "in_channels": _shape(state, "conv0p1s1.kernel")[-2],
        "out_channels": _shape(state, "final.kernel")[-1],
        "conv1_kernel_size": _edge(state, "conv0p1s1.kernel"),
        "depth": depth,
        "planes": planes,
        "layers": layers,
        "initial": _shape(state, "conv0p1s1.kernel")[-1],
        "norm": _norm_kind(state, "bn0"),
    }
