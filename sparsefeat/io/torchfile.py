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
from typing import Any, BinaryIO

import numpy as np
import torch

from sparsefeat.errors import InputError
from sparsefeat.io.unpickle import Inert, Maker, Record, Unfinished, checked_key, unpickle

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
            if zipfile.is_zipfile(stream):
                return _read_zip(stream)
            stream.seek(0)
            _refuse_other_formats(stream.read(64))
            stream.seek(0)
            return _read_legacy(stream)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror or error})") from error
    except ValueError as error:
        raise InputError(f"{path}: {error}") from error


def _refuse_other_formats(head: bytes) -> None:
    if not head:
        raise InputError("not a checkpoint: the file is empty")
    if head.startswith(b"PK\x03\x04"):
        raise InputError("truncated: it begins as a torch file, and the directory at its end is missing")
    if head.lstrip()[:5].lower() in (b"<!doc", b"<html"):
        raise InputError("not a checkpoint but a web page (a download that did not work?)")
    if head.startswith(b"version https://git-lfs"):
        raise InputError("not a checkpoint but a git-lfs pointer (run git lfs pull)")
    if not head.startswith(b"\x80"):
        raise InputError(
            f"not a checkpoint: neither a torch file nor safetensors (it begins with {head[:8]!r})"
        )


# --- the zip layout: <name>/data.pkl, and one record <name>/data/<key> per storage ---


def _read_zip(stream: BinaryIO) -> Any:
    try:
        with zipfile.ZipFile(stream) as archive:
            records = {info.filename: info for info in archive.infolist()}
            pickles = [name for name in records if name == "data.pkl" or name.endswith("/data.pkl")]
            if len(pickles) != 1:
                raise InputError("not a checkpoint: a zip file without torch's data.pkl")
            prefix = pickles[0][: -len("data.pkl")]
            if f"{prefix}constants.pkl" in records:
                raise InputError(
                    "a TorchScript program, which would have to be run; save its state_dict instead"
                )
            if f"{prefix}byteorder" in records and archive.read(f"{prefix}byteorder") != b"little":
                raise InputError("written on a big-endian machine, which is not supported")
            flat: dict[str, torch.Tensor] = {}

            def storage(key: str, n_bytes: int) -> torch.Tensor:
                if key not in flat:
                    info = records.get(f"{prefix}data/{key}")
                    if info is None:
                        raise InputError(f"damaged: its record data/{key} is missing")
                    if info.compress_type != zipfile.ZIP_STORED or info.file_size != n_bytes:
                        raise InputError(
                            f"damaged: its record data/{key} has {info.file_size} bytes, expected {n_bytes}"
                        )
                    flat[key] = _bytes_tensor(archive.read(info))
                return flat[key]

            return unpickle(io.BytesIO(archive.read(pickles[0])), _NAMES, _persistent(storage))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(f"damaged or truncated ({error})") from error


# --- the layout before torch 1.6: five pickles one after the other, then the storages ---


class _Bounded:
    """A file that never tries to read past its end: a length in a damaged file must not reserve memory."""

    def __init__(self, stream: BinaryIO, size: int):
        self.stream = stream
        self.size = size

    def tell(self) -> int:
        return self.stream.tell()

    def read(self, count: int) -> bytes:
        return self.stream.read(min(count, self.size - self.stream.tell()))

    def readline(self) -> bytes:
        return self.stream.readline()


def _read_legacy(file: BinaryIO) -> Any:
    size = os.fstat(file.fileno()).st_size
    stream = _Bounded(file, size)
    not_one = "not a checkpoint: a pickle, but not of torch.save"
    try:
        magic = unpickle(stream, {})
    except ValueError as error:
        raise InputError(f"{not_one} ({error})") from error
    if magic != _LEGACY_MAGIC:
        raise InputError(not_one)
    if unpickle(stream, {}) != _LEGACY_PROTOCOL:
        raise InputError("written by a torch that is too old (before 0.2)")
    system = unpickle(stream, {})
    if not isinstance(system, dict) or not system.get("little_endian", True):
        raise InputError("written on a big-endian machine, which is not supported")
    flat: dict[str, torch.Tensor] = {}

    def storage(key: str, n_bytes: int) -> torch.Tensor:
        if key not in flat:
            total = n_bytes + sum(values.numel() for values in flat.values())
            if total > size:
                raise InputError(f"damaged or truncated: storages of {total} bytes in a file of {size}")
            flat[key] = torch.empty(n_bytes, dtype=torch.uint8)
        return flat[key]

    item_sizes: dict[str, int] = {}
    content = unpickle(stream, _NAMES, _persistent(storage, item_sizes))
    keys = unpickle(stream, {})
    if not isinstance(keys, list) or {key for key in keys if isinstance(key, str)} != set(flat):
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
            raise InputError(f"damaged: its storage {key} has two sizes")
        values = values.view(dtype)
        view = reference[5] if len(reference) == 6 else None
        if view is None:
            return values
        _, start, length = view
        return values[start : start + length]

    return load


def _tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    if not isinstance(storage, torch.Tensor) or not isinstance(size, tuple) or not isinstance(stride, tuple):
        raise TypeError("not the arguments of a tensor")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(number) is not int or number < 0 for number in numbers):
        raise InputError(f"damaged: a tensor of size {size} and stride {stride} at offset {offset}")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if count else 0
    # The second condition keeps a few bytes with stride 0 from pretending to be a huge tensor.
    if count and (last >= storage.numel() or count > storage.numel()):
        raise InputError(f"damaged: a tensor of size {size} in a storage of {storage.numel()} values")
    return torch.as_strided(storage, size, stride, offset if count else 0)


def _bytes_tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


class _Dtype(Unfinished):
    """``numpy.dtype(code)``, whose byte order follows as state."""

    def __init__(self, code: Any, *_: Any):
        # Objects, strings and records are left out: nothing here needs them, and objects can be anything.
        if not isinstance(code, str) or code not in ("b1", *(f"{k}{n}" for k in "iuf" for n in (1, 2, 4, 8))):
            raise InputError(f"the file holds numpy values of type {code!r}, expected numbers; refused")
        self.code = code

    def build(self, state: Any) -> np.dtype:
        return np.dtype(self.code).newbyteorder({"<": "<", ">": ">"}.get(state[1], "="))


class _Array(Unfinished):
    """``numpy._reconstruct(ndarray, (0,), b"b")``, whose shape, type and values follow as state."""

    def __init__(self, *_: Any):
        pass

    def build(self, state: Any) -> np.ndarray:
        _, shape, dtype, column_major, data = state
        flat = np.frombuffer(_latin1(data), dtype=_finished(dtype))
        if not isinstance(shape, tuple) or math.prod(shape) != flat.size:
            raise InputError(f"damaged: {flat.size} numbers for an array of shape {shape}")
        array = flat.reshape(shape, order="F" if column_major else "C")
        return array.astype(array.dtype.newbyteorder("="))


def _finished(dtype: Any) -> np.dtype:
    if isinstance(dtype, _Dtype):
        dtype = np.dtype(dtype.code)
    if not isinstance(dtype, np.dtype):
        raise TypeError("not a numpy type")
    return dtype


def _number(dtype: Any, data: Any) -> int | float | bool:
    dtype, data = _finished(dtype), _latin1(data)
    if len(data) != dtype.itemsize:
        raise InputError(f"damaged: {len(data)} bytes for one {dtype}")
    return np.frombuffer(data, dtype=dtype)[0].item()


def _latin1(text: Any, encoding: Any = "latin1") -> bytes:
    """Bytes as pickle's older protocols write them: ``_codecs.encode(text, "latin1")``."""
    if isinstance(text, bytes):
        return text
    if not isinstance(text, str) or encoding not in ("latin1", "latin-1", "bytes"):
        raise TypeError("not bytes")
    return text.encode("latin1")


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
        "torch.Size": Maker(lambda size=(): tuple(size)),
        "torch.device": Maker(lambda *parts: ":".join(str(part) for part in parts)),
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
        names[f"{core}._reconstruct"] = Maker(_Array)
    for builtins in ("builtins", "__builtin__"):
        names[f"{builtins}.set"] = Maker(_flat_set)
        for kind in _TYPES:
            names[f"{builtins}.{kind}"] = Inert(f"{builtins}.{kind}")
    for kind in _RECORD_CLASSES:
        names[kind] = _record(kind)
    return names


_NAMES = _allowed_names()
