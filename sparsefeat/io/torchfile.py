"""Files of ``torch.save``, today's zip layout and the older one, read without executing anything in them.

``torch.load(weights_only=True)`` refuses the released checkpoints of this field (they pickle their
configuration as an ``easydict.EasyDict``), and its list of allowed names is global to the process. Here
the list belongs to the reader: tensors, plain containers, numpy numbers and arrays, and stand-ins for
the configuration classes.
"""

from __future__ import annotations

import io
import math
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch

from sparsefeat.errors import InputError
from sparsefeat.io.damage import DAMAGE, describe
from sparsefeat.io.unpickle import ITEM_COST, Inert, Maker, Record, States, checked_key, unpickle

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_RECORD_CLASSES = (
    "easydict.EasyDict",
    "argparse.Namespace",
    # PointContrast's configuration: omegaconf, 1.4 to 2.3.
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.UntypedNode",
    "omegaconf.nodes.StringNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.BooleanNode",
)
_TYPES = ("dict", "list", "tuple", "int", "long", "float", "bool", "str", "object")


def read_torch_file(path: str | os.PathLike) -> Any:
    """Read what ``torch.save`` wrote: nested dictionaries, lists, numbers and CPU tensors.

    Objects of configuration classes come as :class:`~sparsefeat.io.unpickle.Record` dictionaries, numpy
    scalars as Python numbers. Nothing is imported or called on behalf of the file.

    Raises:
        InputError: not such a file, truncated or damaged, or it asks for a name outside the list.
    """
    path = Path(path)
    try:
        with open(path, "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            _refuse_other_formats(stream.read(64), path)
            if _is_zip(stream):
                return _read_zip(stream, size)
            stream.seek(0)
            if stream.read(4) == b"PK\x03\x04":
                raise InputError(
                    "truncated: it begins as a torch file, and the directory at its end is missing"
                )
            stream.seek(0)
            return _read_legacy(stream, size)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except InputError as error:
        raise InputError(f"{path}: {str(error).removeprefix(f'{path}: ')}") from error
    except MemoryError as error:
        raise InputError(f"{path}: does not fit into memory") from error


def refuse_pointers(head: bytes, path: str | os.PathLike) -> None:
    """InputError if a file begins with ``head``, and so is what one gets in place of a checkpoint."""
    if not head:
        raise InputError(f"{path}: not a checkpoint: the file is empty")
    if head.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        raise InputError(f"{path}: not a checkpoint but a web page (a download that did not work?)")
    if head.startswith(b"version https://git-lfs"):
        raise InputError(f"{path}: not a checkpoint but a git-lfs pointer (run git lfs pull)")


def _refuse_other_formats(head: bytes, path: Path) -> None:
    refuse_pointers(head, path)
    if not head.startswith((b"\x80", b"PK\x03\x04")):
        raise InputError(
            f"not a checkpoint: neither a torch file nor safetensors (it begins with {head[:8]!r})"
        )


# --- the zip layout: <name>/data.pkl, and one record <name>/data/<key> per storage ---


def _is_zip(stream: BinaryIO) -> bool:
    try:
        return zipfile.is_zipfile(stream)
    except DAMAGE as error:  # of the directory at the end
        raise InputError(f"damaged or truncated ({describe(error)})") from error


def _read_zip(stream: BinaryIO, size: int) -> Any:
    try:
        archive = zipfile.ZipFile(stream)
        records = {info.filename: info for info in archive.infolist()}
    except DAMAGE as error:
        raise InputError(f"damaged or truncated ({describe(error)})") from error
    left = size

    def read(name: str) -> bytes:
        nonlocal left
        info = records[name]
        # torch packs nothing, so that no record is longer than the file, nor all of them together.
        if info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size:
            raise InputError(f"damaged: its record {name} is packed, which torch never does")
        left -= info.file_size
        if left < 0:
            raise InputError(
                f"damaged or truncated: records of more than the {size} bytes of the file"
            )
        try:
            return archive.read(info)
        except (OSError, *DAMAGE) as error:
            raise InputError(f"damaged or truncated ({describe(error)})") from error

    pickles = [name for name in records if name == "data.pkl" or name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise InputError("not a checkpoint: a zip file without torch's data.pkl")
    prefix = pickles[0][: -len("data.pkl")]
    if f"{prefix}constants.pkl" in records:
        raise InputError(
            "a TorchScript program, which would have to be run; save its state_dict instead"
        )
    if f"{prefix}byteorder" in records and read(f"{prefix}byteorder") != b"little":
        raise InputError("written on a big-endian machine, which is not supported")
    flat: dict[str, torch.Tensor] = {}

    def storage(key: str, n_bytes: int) -> torch.Tensor:
        if key not in flat:
            info = records.get(f"{prefix}data/{key}")
            if info is None:
                raise InputError(f"damaged: its record data/{key[:40]} is missing")
            if info.file_size != n_bytes:
                raise InputError(
                    f"damaged: its record data/{key} has {info.file_size} bytes, expected {n_bytes}"
                )
            flat[key] = _bytes_tensor(read(info.filename))
        return flat[key]

    data = read(pickles[0])
    return unpickle(io.BytesIO(data), len(data), _NAMES, _STATES, _persistent(storage))


# --- the layout before torch 1.6: five pickles one after the other, then the storages ---


class _Bounded:
    """A file that never tries to read past its end: a length in a damaged file must not reserve memory."""

    def __init__(self, stream: BinaryIO, size: int):
        self.stream = stream
        self.size = size
        self.readline = stream.readline

    def read(self, count: int) -> bytes:
        return self.stream.read(min(count, self.size - self.stream.tell()))


def _read_legacy(file: BinaryIO, size: int) -> Any:
    stream = _Bounded(file, size)
    not_one = "not a checkpoint: a pickle, but not of torch.save"

    def plain() -> Any:
        return unpickle(stream, size, {}, {})

    try:
        magic = plain()
    except InputError as error:
        raise InputError(f"{not_one} ({error})") from error
    if magic != _LEGACY_MAGIC:
        raise InputError(not_one)
    if plain() != _LEGACY_PROTOCOL:
        raise InputError("written by a torch that is too old (before 0.2)")
    system = plain()
    if not isinstance(system, dict) or not system.get("little_endian", True):
        raise InputError("written on a big-endian machine, which is not supported")
    flat: dict[str, torch.Tensor] = {}
    item_sizes: dict[str, int] = {}
    left = size

    def storage(key: str, n_bytes: int) -> torch.Tensor:
        nonlocal left
        if key not in flat:
            left -= n_bytes
            if left < 0:
                raise InputError(
                    f"damaged or truncated: storages of more than the {size} bytes of the file"
                )
            flat[key] = torch.empty(n_bytes, dtype=torch.uint8)
        return flat[key]

    content = unpickle(stream, size, _NAMES, _STATES, _persistent(storage, item_sizes))
    keys = plain()
    if (
        not isinstance(keys, list)
        or [key for key in keys if type(key) is not str]
        or set(keys) != set(flat)
    ):
        raise InputError("damaged: its list of storages does not match its tensors")
    for key in keys:  # their bytes come last, so that the tensors above are filled only now
        count = int.from_bytes(stream.read(8), "little", signed=True)
        n_bytes = flat[key].numel()
        data = stream.read(n_bytes)
        if count * item_sizes[key] != n_bytes or len(data) != n_bytes:
            raise InputError("damaged or truncated: its storages are incomplete")
        flat[key].copy_(_bytes_tensor(data))
    return content


# --- what a file may name ---


def _persistent(
    storage: Callable[[str, int], torch.Tensor], item_sizes: dict[str, int] | None = None
) -> Callable[[Any], torch.Tensor]:
    """A reader of torch's storage references ``("storage", type, key, device, length[, view])``."""

    def load(reference: Any) -> torch.Tensor:
        if not (
            isinstance(reference, tuple)
            and len(reference) in (5, 6)
            and reference[0] == "storage"
            and isinstance(reference[1], Inert)
            and isinstance(reference[1].value, torch.dtype)
            and isinstance(reference[2], str)
            and isinstance(reference[4], int)
            and reference[4] >= 0
        ):
            raise InputError("damaged: it refers to a storage in a form that torch does not write")
        dtype, key, count = reference[1].value, reference[2], reference[4]
        if item_sizes is not None:
            item_sizes[key] = dtype.itemsize
        values = storage(key, count * dtype.itemsize)
        if values.numel() != count * dtype.itemsize:
            raise InputError(f"damaged: its storage {key[:40]} has two sizes")
        values = values.view(dtype)
        view = reference[5] if len(reference) == 6 else None
        if view is None:
            return values
        _, start, length = view
        return values[start : start + length]

    return load


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    if (
        not isinstance(storage, torch.Tensor)
        or not isinstance(size, tuple)
        or not isinstance(stride, tuple)
    ):
        raise TypeError("not the arguments of a tensor")
    numbers = (offset, *size, *stride)
    if any(type(number) is not int for number in numbers):
        raise TypeError("not the arguments of a tensor")
    if len(size) != len(stride) or min(numbers) < 0:
        raise InputError(
            f"damaged: a tensor of size {size[:9]} and stride {stride[:9]} at offset {offset}"
        )
    count = math.prod(size)
    last = (
        offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else 0
    )
    # The second condition keeps a few bytes with stride 0 from pretending to be a huge tensor.
    if count and (last >= storage.numel() or count > storage.numel()):
        raise InputError(
            f"damaged: a tensor of size {size[:9]} in a storage of {storage.numel()} values"
        )
    return torch.as_strided(storage, size, stride, offset if count else 0)


def _bytes_tensor(data: bytes) -> torch.Tensor:
    return (
        torch.frombuffer(bytearray(data), dtype=torch.uint8)
        if data
        else torch.empty(0, dtype=torch.uint8)
    )


class _Dtype:
    """``numpy.dtype(code)``, whose byte order follows as state."""

    def __init__(self, code: Any, *_: Any):
        # Objects, strings and records are left out: nothing here needs them, and objects can be anything.
        if not isinstance(code, str) or code not in (
            "b1",
            *(f"{k}{n}" for k in "iuf" for n in (1, 2, 4, 8)),
        ):
            shown = repr(code[:20]) if isinstance(code, str) else f"a {type(code).__name__}"
            raise InputError(
                f"the file holds numpy values of type {shown}, expected numbers; refused"
            )
        self.dtype = np.dtype(code)

    def take_state(self, state: Any) -> int:
        self.dtype = self.dtype.newbyteorder(">" if state[1] == ">" else "=")
        return 0


def _fill(array: np.ndarray, state: Any) -> int:
    """Give ``numpy._reconstruct(ndarray, (0,), b"b")`` its shape, type and numbers."""
    _, shape, dtype, column_major, data = state
    given, data = _dtype(dtype), _latin1(data)
    if (
        not isinstance(shape, tuple)
        or any(type(n) is not int or n < 0 for n in shape)
        or math.prod(shape) * given.itemsize != len(data)
    ):
        raise InputError(f"damaged: {len(data)} bytes for an array of {given}")
    native = given.newbyteorder("=")
    if native != given:
        data = np.frombuffer(data, given).astype(native).tobytes() if data else data
    array.__setstate__(cast(Any, (1, shape, native, bool(column_major), data)))
    return len(data)


def _absorb(record: Record, state: Any) -> int:
    """Take over the attributes of an object's state; an item of the same name stays."""
    parts = [
        part for part in (state if type(state) is tuple else (state,))[:2] if isinstance(part, dict)
    ]
    for part in parts:
        for name, value in part.items():
            record.setdefault(name, value)
    return ITEM_COST * sum(map(len, parts))


def _dtype(value: Any) -> np.dtype:
    if not isinstance(value, _Dtype):
        raise TypeError("not a numpy type")
    return value.dtype


def _number(dtype: Any, data: Any) -> int | float | bool:
    dtype, data = _dtype(dtype), _latin1(data)
    if len(data) != dtype.itemsize:
        raise InputError(f"damaged: {len(data)} bytes for one {dtype}")
    value: int | float | bool = np.frombuffer(data, dtype=dtype)[0].item()
    return value


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes as pickle's older protocols write them: ``_codecs.encode(text, "latin1")``."""
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "bytes"):
        raise TypeError("not bytes")
    return text.encode("latin1")


def _size(size: Any = ()) -> tuple:
    if type(size) not in (tuple, list):
        raise TypeError("not a size")
    return tuple(size)


def _device(*parts: Any) -> str:
    if len(parts) not in (1, 2) or any(type(part) not in (str, int) for part in parts):
        raise TypeError("not the arguments of a device")
    return ":".join(str(part)[:40] for part in parts)


def _dictionary(*arguments: Any) -> dict:
    source = arguments[-1] if arguments else {}
    if isinstance(source, Inert):  # defaultdict(type), whose items follow
        return {}
    pairs = source.items() if isinstance(source, dict) else source
    return {checked_key(key): value for key, value in pairs}


def _flat_set(items: Any = ()) -> set:
    return {checked_key(item) for item in items}


def _record(kind: str) -> Maker:
    def make(*_: Any) -> Record:
        return Record(kind)

    return Maker(make)


def _allowed_names() -> dict[str, Maker | Inert]:
    names: dict[str, Maker | Inert] = {
        "torch._utils._rebuild_tensor": Maker(_tensor),
        "torch._utils._rebuild_tensor_v2": Maker(_tensor),
        "torch._utils._rebuild_parameter": Maker(lambda data, *_: data),
        "torch.Size": Maker(_size),
        "torch.device": Maker(_device),
        "torch.storage.UntypedStorage": Inert("torch.storage.UntypedStorage", torch.uint8),
        "collections.OrderedDict": Maker(_dictionary),
        "collections.defaultdict": Maker(_dictionary),
        "collections.Counter": Maker(_dictionary),
        "_codecs.encode": Maker(_latin1),
        "numpy.dtype": Maker(_Dtype),
        "numpy.ndarray": Inert("numpy.ndarray"),
        "typing.Any": Inert("typing.Any"),
    }
    for storage, dtype in _STORAGE_DTYPES.items():
        names[f"torch.{storage}"] = Inert(f"torch.{storage}", dtype)
    for dtype in _STORAGE_DTYPES.values():
        names[str(dtype)] = Inert(str(dtype), dtype)
    for core in ("numpy.core.multiarray", "numpy._core.multiarray"):
        names[f"{core}.scalar"] = Maker(_number)
        names[f"{core}._reconstruct"] = Maker(lambda *_: np.empty(0, dtype=np.uint8))
    for builtins in ("builtins", "__builtin__"):
        names[f"{builtins}.set"] = Maker(_flat_set)
        names[f"{builtins}.bytes"] = Maker(lambda: b"")  # how pickle's older protocols write it
        for kind in _TYPES:
            names[f"{builtins}.{kind}"] = Inert(f"{builtins}.{kind}")
    for kind in _RECORD_CLASSES:
        names[kind] = _record(kind)
    return names


_NAMES = _allowed_names()
_STATES: States = {
    Record: _absorb,
    np.ndarray: _fill,
    _Dtype: _Dtype.take_state,
    # An OrderedDict of weights has the versions of its layers.
    dict: lambda dictionary, state: 0,
}
