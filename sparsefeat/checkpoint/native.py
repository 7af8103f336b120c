"""Networks with their weights: our files (safetensors), and those of FCGF, DGR and PointContrast.

A file of ours is safetensors with a header of four texts: ``config`` (JSON, the arguments of
``create_model``), ``voxel_size`` and ``unit`` (the scale it was trained at), ``extra`` (JSON, anything
about the training). Reading any of these files executes nothing in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from sparsefeat.checkpoint import foreign, legacy
from sparsefeat.errors import InputError, opening, opens_path
from sparsefeat.extras import import_extra
from sparsefeat.io.atomic import atomic_write
from sparsefeat.io.damage import DAMAGE, describe
from sparsefeat.io.packaged import packaged
from sparsefeat.io.torchfile import read_torch_file, refuse_pointers
from sparsefeat.models import Network, create_model
from sparsefeat.models.blocks import checked_device

ASSETS = packaged("assets")
"""Where ``sparsefeat/<name>`` is looked up."""

HUB_FILE = "model.safetensors"
"""The file that is read from a hub repository, and from a folder of the same layout."""

_FORMAT = "sparsefeat"
_SUFFIXES = (".safetensors", ".pth", ".pt", ".ckpt", ".tar", ".bin")
_SHOWN = 5  # keys listed per kind of misfit


@dataclass
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        state: weights by layer name, on the CPU, as stored.
        config: arguments of :func:`sparsefeat.models.create_model`.
        voxel_size: edge of a voxel at training time in ``unit``; None where the file does not say.
        unit: of ``voxel_size``.
        extra: what else was written about the training.
    """

    state: dict[str, Tensor]
    config: dict[str, Any]
    voxel_size: float | None = None
    unit: str = "m"
    extra: dict[str, Any] = field(default_factory=dict)


def from_pretrained(
    name_or_path: str | os.PathLike,
    device: str | torch.device = "cpu",
    backend: str = "auto",
    **overrides: Any,
) -> Network:
    """A network with its weights, in evaluation mode.

    Args:
        name_or_path: a file (ours, or a ``.pth`` of FCGF, DGR or PointContrast as released); a folder of
            :func:`sparsefeat.checkpoint.write_folder`; ``"sparsefeat/<name>"`` for a checkpoint in ``assets``;
            or a hub id ``"organisation/name"``, optionally with ``"@revision"``.
        device: where the network is put, such as ``"cuda:1"``.
        backend: see :func:`sparsefeat.models.create_model`.
        overrides: arguments of the network in place of the file's; those that leave the weights as they
            are, such as ``dilation`` or ``normalize_feature``.

    Returns:
        The network, with ``.config``, ``.voxel_size`` (None where the file does not say) and ``.unit``.

    Raises:
        InputError: no such file, not a checkpoint, truncated, another network, weights that do not fit
            (with the missing, unexpected and misshapen keys), a file that asks for a name outside the
            short list that a checkpoint needs, or no such device.
        MissingExtraError: a hub id without huggingface_hub, or a backend that is not installed.
    """
    where = checked_device(device, torch.nn.Identity())
    path = find_checkpoint(name_or_path)
    checkpoint = read_checkpoint(path)
    try:
        # No storage for weights that are about to be replaced, and no draw from the global generator.
        with torch.device("meta"):
            model = cast(
                Network, create_model(**{**checkpoint.config, **overrides}, backend=backend)
            )
        load_weights(model, checkpoint.state)
    except (ArithmeticError, MemoryError, RuntimeError, TypeError, ValueError) as error:
        raise InputError(
            f"{path}: {error if isinstance(error, InputError) else describe(error)}"
        ) from error
    model.voxel_size = checkpoint.voxel_size
    model.unit = checkpoint.unit
    return model.to(where).eval()


def save_checkpoint(
    path: str | os.PathLike,
    model: Network,
    voxel_size: float | None,
    extra: dict[str, Any] | None = None,
    unit: str = "m",
) -> None:
    """Write a network as safetensors; a file that is already there stays until the new one is complete.

    Args:
        path: ends in ``.safetensors``.
        model: a network of :mod:`sparsefeat.models`, on any device, compiled by torch or not.
        voxel_size: edge of a voxel that it was trained with, in ``unit``.
        extra: anything about the training that JSON can hold.
        unit: of the voxel size.

    Raises:
        InputError: the path cannot be written (or the disk is full), ``extra`` is no dict of JSON, or
            :func:`from_pretrained` could not read the file: ``model`` has no configuration to build it again from, or
            its weights are not those of this configuration, or are not finite.
    """
    from safetensors.torch import save

    path = Path(path)
    if path.suffix != ".safetensors":
        raise InputError(f"{path}: expected a name that ends in .safetensors")
    if not isinstance(getattr(model, "config", None), dict):
        raise InputError(
            f"{path}: {type(model).__name__} has no config, expected a network of sparsefeat.models"
        )
    if not isinstance(extra, dict | None):
        raise InputError(f"{path}: extra is a {type(extra).__name__}, expected a dict")
    if not isinstance(unit, str) or not unit:
        raise InputError(f"{path}: unit {unit!r}, expected a text such as m")
    # torch.compile adds to the names.
    state = {
        name.replace("_orig_mod.", ""): weights.detach().cpu().contiguous()
        for name, weights in model.state_dict().items()
    }
    _check_loadable(state, model.config, path)
    if voxel_size is not None:
        voxel_size = foreign.check_voxel_size(voxel_size)
    try:
        header = {
            "format": _FORMAT,
            "config": json.dumps(model.config),
            "voxel_size": json.dumps(voxel_size),
            "unit": unit,
            "extra": json.dumps(extra or {}),
        }
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: extra cannot be written as JSON ({error})") from error
    try:
        with atomic_write(path) as temporary:
            temporary.write_bytes(_with_sorted_texts(save(state, header)))
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error})") from error


def _check_loadable(state: dict[str, Tensor], config: dict[str, Any], path: Path) -> None:
    try:
        with torch.device("meta"):
            network = cast(Network, create_model(**config))
        load_weights(network, state)
    except (TypeError, ValueError) as error:
        raise InputError(f"{path}: {error}") from error


def _with_sorted_texts(file: bytes) -> bytes:
    """A safetensors file with the texts of its header in order: the library writes them in a random one."""
    length = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode("utf-8")
    text += b" " * (-len(text) % 8)  # tensors begin at a multiple of eight
    return len(text).to_bytes(8, "little") + text + file[8 + length :]


def read_checkpoint(path: str | os.PathLike) -> Checkpoint:
    """Read a checkpoint file of ours, FCGF, DGR or PointContrast without building the network.

    Raises:
        InputError: as :func:`from_pretrained`.
    """
    path = _existing_file(path)
    if _is_safetensors(path):
        content, header = _read_safetensors(path)
        if header.get("format") == _FORMAT and "config" in header:
            return _ours(content, header, path)
        found = "weights without our header, and "
    else:
        content, found = read_torch_file(path), ""
    try:
        state = foreign.find_state(content)
        config, voxel_size = foreign.read_config(content, state)
        state = foreign.to_cube_order(state, config["name"])
    except ValueError as error:
        raise InputError(f"{path}: {found}{error}") from error
    return Checkpoint(state, config, voxel_size)


def read_state(path: str | os.PathLike, key: str | None = None) -> dict[str, Tensor]:
    """The weights in any torch or safetensors file, of whatever network, by layer name.

    Args:
        path: the file.
        key: where in the file, dots for nested dictionaries; None: the usual places.

    Raises:
        InputError: not such a file, or no weights there.
    """
    path = _existing_file(path)
    content = _read_safetensors(path)[0] if _is_safetensors(path) else read_torch_file(path)
    try:
        return foreign.find_state(content, key)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def load_weights(model: Network, state: dict[str, Tensor]) -> None:
    """Give ``model`` exactly these weights, converted to the floating type of its parameters.

    A pointwise kernel may come as [1, C_in, C_out] and a bias as [C], as early engine versions wrote them.

    Raises:
        InputError: missing, unexpected or misshapen keys; they are listed.
    """
    wanted = model.state_dict()
    fitted = {name: _as_shaped(weights, wanted.get(name)) for name, weights in state.items()}
    missing = [name for name in wanted if name not in fitted]
    unexpected = [name for name in fitted if name not in wanted]
    misshapen = [
        f"{name} {tuple(fitted[name].shape)} instead of {tuple(want.shape)}"
        for name, want in wanted.items()
        if name in fitted and fitted[name].shape != want.shape
    ]
    problems = [
        f"{len(names)} {kind} ({', '.join(names[:_SHOWN])}{', ...' if len(names) > _SHOWN else ''})"
        for kind, names in (
            ("missing", missing),
            ("unexpected", unexpected),
            ("misshapen", misshapen),
        )
        if names
    ]
    if problems:
        raise InputError(f"the weights do not fit {type(model).__name__}: {'; '.join(problems)}")
    broken = [
        f"{name} ({int((~weights.isfinite()).sum())} of {weights.numel()})"
        for name, weights in fitted.items()
        if weights.is_floating_point() and not weights.is_meta and not weights.isfinite().all()
    ]
    if broken:
        more = ", ..." if len(broken) > _SHOWN else ""
        raise InputError(
            f"{len(broken)} of {len(fitted)} weights have NaN or infinite values: {', '.join(broken[:_SHOWN])}{more}"
        )
    # A network without storage takes the tensors as its own; another keeps those that an optimizer may hold.
    bare = any(want.is_meta for want in wanted.values())
    if bare:
        fitted = {
            name: weights.to(wanted[name].dtype, copy=True) for name, weights in fitted.items()
        }
    model.load_state_dict(fitted, strict=True, assign=bare)


def weights_digest(name_or_path: str | os.PathLike) -> str:
    """Says whether a checkpoint's file is the one that something was computed with: the begin of its SHA-256.

    Raises:
        InputError: as :func:`find_checkpoint`.
    """
    path = find_checkpoint(name_or_path)
    with opening(path):
        return hashlib.sha256(path.read_bytes()).hexdigest()[:16]


@opens_path
def find_checkpoint(name_or_path: str | os.PathLike) -> Path:
    """The file that a path, a name ``"sparsefeat/<name>"`` or a hub id stands for; a hub's is downloaded.

    A folder stands for its ``model.safetensors``.

    Raises:
        InputError: there is none.
        MissingExtraError: a hub id where huggingface_hub is not installed.
    """
    if not isinstance(name_or_path, (str, os.PathLike)):
        raise InputError(
            f"checkpoint {name_or_path!r}, expected a path, a name 'sparsefeat/<name>' or a hub id"
        )
    text = os.fspath(name_or_path)
    path = Path(text)
    if path.is_file():
        return path
    if path.is_dir():
        if not (path / HUB_FILE).is_file():
            raise InputError(f"{path}: a folder without {HUB_FILE}, expected a checkpoint")
        return path / HUB_FILE
    organisation, _, name = text.partition("/")
    if organisation == "sparsefeat" and name and "/" not in name:
        name = name.removesuffix(".safetensors")
        renamed = legacy.RENAMED_CHECKPOINTS.get(name)
        if renamed is not None:
            warnings.warn(
                f"the checkpoint sparsefeat/{name} is sparsefeat/{renamed} since version 0.2; the old name will go",
                FutureWarning,
                stacklevel=3,
            )
            name = renamed
        asset = ASSETS / f"{name}.safetensors"
        if asset.is_file():
            return asset
        known = sorted(f"sparsefeat/{file.stem}" for file in ASSETS.glob("*.safetensors"))
        raise InputError(f"{text}: no such checkpoint; there are: {', '.join(known) or 'none'}")
    if (
        re.fullmatch(r"[\w.-]+/[\w.-]+(@[\w./-]+)?", text)
        and not text.endswith(_SUFFIXES)
        and text[0] != "."
    ):
        return _download(text)
    asset = ASSETS / f"{text.removesuffix('.safetensors')}.safetensors"
    hint = (
        f"; did you mean sparsefeat/{asset.stem}?"
        if text and "/" not in text and asset.is_file()
        else ""
    )
    raise InputError(f"{text}: no such file{hint}")


def _download(hub_id: str) -> Path:
    huggingface_hub = import_extra("huggingface_hub", f"{hub_id}: a hub id")
    repository, _, revision = hub_id.partition("@")
    try:
        return Path(
            huggingface_hub.hf_hub_download(repository, HUB_FILE, revision=revision or None)
        )
    except (OSError, ValueError) as error:  # its errors are one or the other, network included
        reason = str(error).strip().splitlines()
        raise InputError(
            f"{hub_id}: neither a file here nor a hub repository with {HUB_FILE} "
            f"({reason[0] if reason else type(error).__name__})"
        ) from error


def _existing_file(path: str | os.PathLike) -> Path:
    path = Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: {'a folder, expected a checkpoint file' if path.is_dir() else 'no such file'}"
        )
    return path


def _is_safetensors(path: Path) -> bool:
    # Its first 8 bytes are the length of the JSON header that follows.
    try:
        with open(path, "rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if head[8:9] == b"{" or (
        path.suffix == ".safetensors" and not head.startswith((b"PK", b"\x80\x02"))
    ):
        if head[8:9] != b"{":
            refuse_pointers(head, path)
        return True
    return False


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except (SafetensorError, OSError, *DAMAGE) as error:
        raise InputError(
            f"{path}: not a safetensors file, or truncated or damaged ({describe(error)})"
        ) from error


def _ours(state: dict[str, Tensor], header: dict[str, str], path: Path) -> Checkpoint:
    try:
        config, extra = json.loads(header["config"]), json.loads(header.get("extra", "{}"))
        voxel_size = json.loads(header.get("voxel_size", "null"))
        if (
            not isinstance(config, dict)
            or not isinstance(config.get("name"), str)
            or not isinstance(extra, dict)
        ):
            raise InputError("config and extra must be JSON objects, and config must have a name")
        if voxel_size is not None:
            voxel_size = foreign.check_voxel_size(voxel_size)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: its header is damaged ({describe(error)})") from error
    try:
        config = legacy.current_network_options(config)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error
    return Checkpoint(state, config, voxel_size, header.get("unit", "m"), extra)


def _as_shaped(weights: Tensor, wanted: Tensor | None) -> Tensor:
    if wanted is not None and weights.shape != wanted.shape:
        for shape in (weights.shape[1:], (1, *weights.shape)):
            if tuple(shape) == tuple(wanted.shape) and weights.numel() == wanted.numel():
                return weights.reshape(wanted.shape)
    return weights
