"""What the checkpoints of FCGF, DGR and PointContrast hold, in the terms of :mod:`sparsefeat.models`.

Their ``.pth`` files are dictionaries: the weights under ``state_dict`` (DGR keeps its feature network
there and its inlier network beside it), the configuration of the run under ``config``. Whatever the
configuration does not say, the weights' own shapes do.
"""

from __future__ import annotations

import math
import reprlib
import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparsefeat.errors import InputError
from sparsefeat.io.unpickle import Record
from sparsefeat.models import model_class, model_names
from sparsefeat.models.blocks import kernel_edge
from sparsefeat.models.res16unet import Res16UNet, Res16UNet34C
from sparsefeat.models.unet import UNet
from sparsefeat.sparse import Kernel

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
    """The weights in what a torch file held, by layer name.

    What wrappers add to the names is taken off: ``module.`` of DataParallel, ``_orig_mod.`` of torch.compile.
    Arrays of numpy among the weights are weights too, and empty ones are none.

    Args:
        content: what :func:`sparsefeat.io.torchfile.read_torch_file` gave.
        key: where they are, with dots for nested dictionaries; None: the usual places.

    Raises:
        InputError: there are none there; the message says where there are some.
    """
    if key is not None:
        found = _get(content, key)
        if not _is_state(found):
            raise InputError(f"no weights under {key!r}; {_where_weights_are(content)}")
        return _plain_state(found)
    if _is_state(content):
        return _plain_state(content)
    for name in _STATE_KEYS:
        if isinstance(content, dict) and _is_state(content.get(name)):
            return _plain_state(content[name])
    raise InputError(
        f"no weights under any of {', '.join(_STATE_KEYS)}; {_where_weights_are(content)}"
    )


def read_config(content: Any, state: Mapping[str, Tensor]) -> tuple[dict[str, Any], float | None]:
    """The arguments of :func:`sparsefeat.models.create_model`, and the voxel size in metres if it is known.

    Raises:
        InputError: a network that is not ours, or a value of the configuration that cannot be one.
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
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float | np.integer | np.floating)
        or not 0 < value < math.inf
    ):
        raise InputError(
            f"voxel_size: expected a positive number of metres, got {reprlib.repr(value)}"
        )
    return float(value)


def infer_config(state: Mapping[str, Tensor], name: str | None = None) -> dict[str, Any]:
    """Read a network's configuration off the names and shapes of its weights.

    Args:
        state: weights by layer name.
        name: the network, if known: then only the numbers that its name leaves open are read, so that
            weights that do not belong to it show as such.

    Raises:
        InputError: the layers are of no network that we have.
    """
    if name is not None:
        first = "conv0p1s1.kernel" if issubclass(model_class(name), Res16UNet) else "conv1.kernel"
        last = "final.kernel" if getattr(model_class(name), "FINAL", True) else "conv1_tr.kernel"
        return {"name": name, **_infer_ends(state, first, last)}
    if "conv0p1s1.kernel" in state:
        return _infer_res16unet(state)
    if "conv1.kernel" in state and "conv1_tr.kernel" in state:
        return _infer_unet(state)
    raise InputError(
        f"unknown network: its {len(state)} weights begin with {', '.join(list(state)[:3])}; expected "
        "the layers of a ResUNet or SimpleNet (conv1.kernel, norm1.bn.weight, ...) or of a Res16UNet "
        "(conv0p1s1.kernel, ...)"
    )


def to_cube_order(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights with the cells of every kernel in the order of a cube, first axis fastest.

    PointContrast's Res16UNets build the 3^3 kernels of their residual blocks as a "hybrid" region, whose
    cells come in another order: the centre, then each axis in turn repeats all cells so far at -1 and at +1.

    Args:
        state: weights by layer name, as released.
        name: the network.
    """
    if not issubclass(model_class(name), Res16UNet):
        return dict(state)
    hybrid: list[tuple[int, ...]] = [(0, 0, 0)]
    for axis in range(3):
        hybrid += [(*c[:axis], step, *c[axis + 1 :]) for c in list(hybrid) for step in (-1, 1)]
    order = [hybrid.index(cell) for cell in Kernel.of(3).cells]
    return {
        key: weights[order]
        if key.startswith("block") and weights.ndim == 3 and len(weights) == 27
        else weights
        for key, weights in state.items()
    }


# --- finding things in nested dictionaries ---


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and all(
            isinstance(name, str) and isinstance(w, Tensor | np.ndarray)
            for name, w in value.items()
        )
        and any(isinstance(w, Tensor) or w.size for w in value.values())
    )


def _plain_state(state: dict[str, Tensor | np.ndarray]) -> dict[str, Tensor]:
    plain = {
        name.replace("_orig_mod.", ""): torch.from_numpy(weights)
        if isinstance(weights, np.ndarray)
        else weights
        for name, weights in state.items()
        if isinstance(weights, Tensor) or weights.size
    }
    while plain and all(name.startswith("module.") for name in plain):
        plain = {name.removeprefix("module."): weights for name, weights in plain.items()}
    return plain


def _where_weights_are(content: Any) -> str:
    if not isinstance(content, dict):
        return f"the file holds a {type(content).__name__}"
    places = [
        ".".join(path)[:80] for path in _paths(content) if _is_state(_get(content, ".".join(path)))
    ][:5]
    if places:
        return f"there are weights under {', '.join(places)}"
    return f"its keys are {', '.join(repr(name)[:60] for name in list(content)[:10])}"


def _paths(content: dict) -> list[tuple[str, ...]]:
    """The places of dictionaries, three deep at most; one that is at several places counts once."""
    seen = {id(content)}
    found: list[tuple[str, ...]] = []
    pending: list[tuple[tuple[str, ...], dict]] = [((), content)]
    while pending:
        path, inside = pending.pop()
        for name, value in inside.items():
            if (
                isinstance(name, str)
                and isinstance(value, dict)
                and id(value) not in seen
                and len(path) < 3
            ):
                seen.add(id(value))
                found.append((*path, name))
                pending.append((found[-1], value))
    return found


def _get(content: Any, key: str) -> Any:
    """The value at a dotted path, or None; through omegaconf's containers and nodes as well."""
    for part in key.split("."):
        content = _plain(content)
        if not isinstance(content, dict) or part not in content:
            return None
        content = content[part]
    return _plain(content)


def _plain(value: Any) -> Any:
    """What an omegaconf object holds; up to version 1.4 the names have no underscore."""
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
                if not isinstance(value, str | int | float):
                    raise InputError(
                        f"config: {place} is a {type(value).__name__}, expected a number or a text"
                    )
                if field == "name" and not isinstance(value, str):
                    raise InputError(
                        f"config: {place} is {reprlib.repr(value)}, expected the name of a network"
                    )
                given[field] = value[:80] if isinstance(value, str) else value
                break
    return given


# --- reading shapes ---


def _width(state: Mapping[str, Tensor], name: str, axis: int = -1) -> int:
    if name not in state or state[name].ndim < 2:
        raise InputError(f"unknown network: {name} is missing or not a kernel")
    return state[name].shape[axis]


def _infer_ends(state: Mapping[str, Tensor], first: str, last: str) -> dict[str, Any]:
    """Channels in and out and the first kernel's edge, as far as those layers are there."""
    seen = {}
    if first in state and state[first].ndim in (2, 3):
        edge = kernel_edge(state[first].shape[0], 3) if state[first].ndim == 3 else 1
        if edge is None:
            raise InputError(
                f"{first}: {state[first].shape[0]} cells are not the cube of a kernel size"
            )
        seen = {"in_channels": state[first].shape[-2], "conv1_kernel_size": edge}
    if last in state and state[last].ndim in (2, 3):
        seen["out_channels"] = state[last].shape[-1]
    return seen


def _norm_kind(state: Mapping[str, Tensor], layer: str) -> str:
    if f"{layer}.bn.weight" in state:
        return "BN"
    return "IN" if f"{layer}.weight" in state else "none"


def _infer_unet(state: Mapping[str, Tensor]) -> dict[str, Any]:
    depth = 0
    while f"conv{depth + 2}.kernel" in state:
        depth += 1
    channels = [_width(state, f"conv{level + 1}.kernel") for level in range(depth + 1)]
    tr_channels = [_width(state, f"conv{level + 1}_tr.kernel") for level in range(depth + 1)]
    norm = _norm_kind(state, "norm1")
    block_norm = _norm_kind(state, "block1.norm1") if "block1.conv1.kernel" in state else None
    final = "final.kernel" in state
    last_norm = _norm_kind(state, "norm1_tr") != "none"

    def fits(model: type[UNet]) -> bool:
        # What a network's class decides, and no argument of it. A norm that is "none" leaves no trace.
        same_norm = model.LAST_NORM == last_norm or norm == "none"
        return (
            (model.BLOCK_NORM is not None) == (block_norm is not None)
            and model.FINAL == final
            and same_norm
        )

    def closeness(model: type[UNet]) -> tuple[int, ...]:
        first = (
            0 if final else 1
        )  # without a last layer, the finest width up is that of the features
        same_widths = list(model.CHANNELS[: depth + 1]) == channels
        same_widths &= list(model.TR_CHANNELS[first : depth + 1]) == tr_channels[first:]
        same_norms = (model.NORM, model.BLOCK_NORM) == (norm, block_norm)
        return (same_widths and same_norms, same_widths, same_norms, model.DEPTH == depth)

    models = map(model_class, model_names())
    candidates = [model for model in models if issubclass(model, UNet) and fits(model)]
    if not candidates:
        raise InputError(
            "unknown network: a U-net whose layers are those of no ResUNet or SimpleNet"
        )
    return {
        "name": max(candidates, key=closeness).__name__,
        **_infer_ends(state, "conv1.kernel", "final.kernel" if final else "conv1_tr.kernel"),
        "depth": depth,
        "channels": channels,
        "tr_channels": tr_channels,
        "norm": norm,
        "block_norm": block_norm,
    }


def _infer_res16unet(state: Mapping[str, Tensor]) -> dict[str, Any]:
    depth = max(
        (level for level in range(1, 5) if f"block{level}.0.conv1.kernel" in state), default=0
    )
    published: type[Res16UNet] = Res16UNet34C
    planes, layers = list(published.PLANES), list(published.LAYERS)
    places = [*range(depth), *range(8 - depth, 8)]
    for place in places:
        planes[place] = _width(state, f"block{place + 1}.0.conv1.kernel")
        layers[place] = 0
        while f"block{place + 1}.{layers[place]}.conv1.kernel" in state:
            layers[place] += 1

    def same(model: type[Res16UNet]) -> bool:
        return all(model.PLANES[p] == planes[p] and model.LAYERS[p] == layers[p] for p in places)

    models = [each for each in map(model_class, model_names()) if issubclass(each, Res16UNet)]
    return {
        "name": next((each for each in [published, *models] if same(each)), published).__name__,
        **_infer_ends(state, "conv0p1s1.kernel", "final.kernel"),
        "depth": depth,
        "planes": planes,
        "layers": layers,
        "initial": _width(state, "conv0p1s1.kernel"),
        "norm": _norm_kind(state, "bn0"),
    }
