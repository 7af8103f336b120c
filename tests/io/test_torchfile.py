"""Reading torch files: the same values as torch reads, nothing executed, and one clear error for the rest."""

from __future__ import annotations

import builtins
import collections
import io
import os
import pickle
import struct
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from foreign_checkpoints import LAYOUTS, released, save_foreign, small_network

from sparsefeat.checkpoint import from_pretrained
from sparsefeat.errors import InputError
from sparsefeat.io.torchfile import read_torch_file

# --- what torch.save writes ---


@LAYOUTS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_tensors_of_every_kind_survive(tmp_path, zipped, protocol):
    grid = torch.arange(24.0).reshape(4, 6)
    content = {
        "transposed": grid.t(), "part": grid[1:3, ::2], "shared": [grid, grid[0]], "scalar": torch.tensor(3),
        "empty": torch.empty(0, 3), "half": grid.half(), "bfloat": grid.bfloat16(), "double": grid.double(),
        "int32": grid.int(), "int16": grid.short(), "int8": grid.char(), "uint8": grid.byte(),
        "bool": grid > 3,
        "nested": {"a": (1, 2.5, None, True, "x", b"y", {3, 4})}, 5: collections.Counter([1]),
    }  # fmt: skip
    path = tmp_path / "content.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped, pickle_protocol=protocol)
    mine = read_torch_file(path)
    assert_same_content(mine, content)
    assert mine["shared"][0].data_ptr() == mine["shared"][1].data_ptr()


def test_numpy_numbers_and_arrays_survive_and_numpy_objects_are_refused(tmp_path):
    content = {
        "f": np.float32(2.5),
        "i": np.int64(-3),
        "b": np.bool_(True),
        "a": np.arange(6.0).reshape(2, 3),
    }
    content["fortran"] = np.asfortranarray(np.arange(6, dtype=">i2").reshape(2, 3))
    torch.save(content, tmp_path / "a.pt")
    mine = read_torch_file(tmp_path / "a.pt")
    assert (mine["f"], mine["i"], mine["b"]) == (2.5, -3, True)
    assert np.array_equal(mine["a"], content["a"])
    assert np.array_equal(mine["fortran"], content["fortran"])
    torch.save(np.array([1, None], dtype=object), tmp_path / "b.pt")
    with pytest.raises(ValueError, match="numpy values of type 'O8', expected numbers"):
        read_torch_file(tmp_path / "b.pt")


def test_the_reader_agrees_with_torch_on_every_real_file(dataset):
    for path in sorted(dataset("checkpoints").glob("*.pth")):
        assert_same_content(
            read_torch_file(path), torch.load(path, map_location="cpu", weights_only=True)
        )


def assert_same_content(mine, expected) -> None:
    if isinstance(expected, torch.Tensor):
        assert mine.dtype == expected.dtype
        assert mine.stride() == expected.stride()
        assert torch.equal(mine, expected)
    elif isinstance(expected, dict):
        assert list(mine) == list(expected)
        for key, value in expected.items():
            assert_same_content(mine[key], value)
    elif isinstance(expected, list | tuple):
        assert len(mine) == len(expected)
        for a, b in zip(mine, expected, strict=True):
            assert_same_content(a, b)
    else:
        assert mine == expected


# --- files that want something executed ---


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function, *arguments):
        self.function = function
        self.arguments = arguments

    def __reduce__(self):
        return self.function, self.arguments


def hostile(marker: Path) -> dict[str, tuple[object, str]]:
    command = f"touch {marker}"
    code = f"open({str(marker)!r}, 'w')"
    return {
        "system": (Call(os.system, command), f"{os.system.__module__}.system"),
        "eval": (Call(builtins.eval, code), "eval"),
        "getattr": (Call(getattr, Call(__import__, "os"), "system"), "getattr"),
        "load": (Call(torch.load, str(marker)), r"torch\.serialization\.load"),
        "bytes": (Call(torch.storage._load_from_bytes, b""), r"torch\.storage\._load_from_bytes"),
        "open": (Call(open, str(marker), "w"), r"io\.open"),
        "array": (np.array([Call(os.system, command)], dtype=object), "numpy values of type 'O8'"),
        "nested": (
            {"a": [np.float64(1), {"b": Call(os.system, command)}]},
            f"{os.system.__module__}.system",
        ),
        "default": (collections.defaultdict(os.getcwd), f"{os.getcwd.__module__}.getcwd"),
        "module": (torch.nn.Linear(1, 1), r"torch\.nn\.modules\.linear\.Linear"),
    }


@LAYOUTS
@pytest.mark.parametrize("kind", list(hostile(Path("x"))))
def test_a_file_that_asks_for_anything_else_is_refused_by_name_and_runs_nothing(
    tmp_path, zipped, kind
):
    marker = tmp_path / "executed"
    evil, name = hostile(marker)[kind]
    content = released(small_network())
    content["config"]["trainer"] = evil
    path = save_foreign(content, tmp_path / "evil.pth", zipped)
    with pytest.raises(ValueError, match=rf"evil.pth: .*{name}.*refused"):
        from_pretrained(path)
    assert not marker.exists()


def zip_with_pickle(path: Path, data: bytes) -> Path:
    """A torch file with hand-written pickle code and one storage of four bytes."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", b"\0" * 4)
    return path


STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ"
TENSOR = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"\x80\x02cos\nsystem\n(X\x04\0\0\0truetR.", r"asks for os\.system"),
        (b"\x80\x02(X\x04\0\0\0trueios\nsystem\n.", "instruction INST"),
        (b"\x80\x02(cos\nsystem\nX\x04\0\0\0trueo.", r"asks for os\.system"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R.", r"asks for os\.system"),
        (
            b"\x80\x02ccollections\nOrderedDict.system\n.",
            r"asks for collections\.OrderedDict\.system",
        ),
        (b"\x80\x02\x82\x01.", "instruction EXT1"),
        (b"\x80\x02Pabc\n.", "instruction PERSID"),
        # Calling what is only a name here, setting attributes of a class, of a function, of a tensor.
        (b"\x80\x02ctorch\nFloatStorage\n)R.", r"calls torch\.FloatStorage"),
        (b"\x80\x02ccollections\nOrderedDict\n}X\x01\0\0\0aK\x01sb.", "sets attributes of a Maker"),
        (b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}b.", "sets attributes of a Maker"),
        (TENSOR + b"K\0K\x01\x85K\x01\x85\x89NtR}b.", "sets attributes of a Tensor"),
        (b"\x80\x02X\x01\0\0\0a)R.", "calls a str"),
        # Tensors that reach out of their storage, or stretch it.
        (
            TENSOR + b"K\x01K\x01\x85K\x01\x85\x89NtR.",
            r"a tensor of size \(1,\) in a storage of 1 values",
        ),
        (
            TENSOR + b"K\0K\x02\x85K\x01\x85\x89NtR.",
            r"a tensor of size \(2,\) in a storage of 1 values",
        ),
        (TENSOR + b"K\0J\xff\xff\xff\x7f\x85K\0\x85\x89NtR.", "in a storage of 1 values"),
        (TENSOR + b"J\xff\xff\xff\xffK\x01\x85K\x01\x85\x89NtR.", "at offset -1"),
        (STORAGE.replace(b"X\x01\0\0\x000", b"X\x01\0\0\x001") + b".", "record data/1 is missing"),
        (STORAGE.replace(b"K\x01", b"K\x02") + b".", "has 4 bytes, expected 8"),
        # Damage.
        (b"", "damaged or truncated pickle"),
        (b".", "ends with values left over"),
        (b"\x80\x02h\x05.", "damaged pickle"),
        (b"\x80\x02K\x01K\x02.", "ends with values left over"),
        (b"\x80\x02}(K\x01u.", "damaged pickle"),
        (b"\x80\x02K\x01K\x02s.", "damaged pickle"),
        (b"\x80\x02u.", "damaged pickle"),
        (b"\xff\x02.", "damaged or truncated pickle"),
    ],
)
def test_hand_written_pickles_get_nowhere(tmp_path, data, message):
    path = zip_with_pickle(tmp_path / "evil.pth", data)
    with pytest.raises(ValueError, match=message):
        read_torch_file(path)


def test_a_wide_sharing_pickle_does_not_grow(tmp_path):
    doubled = b"\x80\x02]q\0" + b"0(h\0h\0lq\0" * 60 + b"."  # each list holds the last one twice
    assert isinstance(read_torch_file(zip_with_pickle(tmp_path / "a.pt", doubled)), list)


def test_a_plain_pickle_is_refused_by_name_too(tmp_path):
    path = tmp_path / "evil.pth"
    path.write_bytes(pickle.dumps(Call(os.system, f"touch {tmp_path / 'executed'}")))
    with pytest.raises(ValueError, match=rf"not of torch.save.*{os.system.__module__}\.system"):
        from_pretrained(path)
    assert not (tmp_path / "executed").exists()


# --- files that are no checkpoint, or only part of one ---


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"hello, world, this is text", "neither a torch file nor safetensors"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a git-lfs pointer"),
        (b"\x93NUMPY\x01\0", "neither a torch file nor safetensors"),
        (b"\x80\x02K\x01.", "a pickle, but not of torch.save"),
        (struct.pack("<Q", 10) + b"{}garbage", "not a safetensors file, or truncated or damaged"),
    ],
)
def test_files_that_are_no_checkpoint_say_what_they_are(tmp_path, data, message):
    path = tmp_path / "some.pth"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=f"some.pth: .*{message}"):
        from_pretrained(path)


def test_zip_files_that_are_no_checkpoint_say_what_they_are(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.pth", "w") as archive:
        archive.writestr("hello.txt", "hello")
    with pytest.raises(ValueError, match="without torch's data.pkl"):
        from_pretrained(tmp_path / "a.pth")
    with zipfile.ZipFile(tmp_path / "b.pth", "w") as archive:
        archive.writestr("b/data.pkl", b"N.")
        archive.writestr("b/constants.pkl", b").")
    with pytest.raises(ValueError, match="a TorchScript program"):
        from_pretrained(tmp_path / "b.pth")


@LAYOUTS
def test_a_file_cut_anywhere_is_one_clear_error(tmp_path, zipped):
    path = save_foreign(released(small_network()), tmp_path / "fcgf.pth", zipped)
    data = path.read_bytes()
    for length in [1, 5, 12, 100, *np.linspace(200, len(data) - 1, 12).astype(int)]:
        path.write_bytes(data[:length])
        with pytest.raises(ValueError, match="fcgf.pth: .*(truncated|damaged|not a checkpoint)"):
            from_pretrained(path)


def test_a_damaged_weight_is_noticed(tmp_path):
    path = save_foreign(released(small_network()), tmp_path / "fcgf.pth")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)
    with pytest.raises(ValueError, match="damaged or truncated"):
        from_pretrained(path)


def test_random_damage_never_raises_anything_else(tmp_path):
    buffer = io.BytesIO()
    torch.save(
        {"a": torch.ones(2), "b": [1, 2.5, "c"]}, buffer, _use_new_zipfile_serialization=False
    )
    data, rng, path = buffer.getvalue(), np.random.default_rng(0), tmp_path / "a.pt"
    for _ in range(400):
        broken = bytearray(data)
        for place in rng.integers(0, len(data), 3):
            broken[place] = rng.integers(0, 256)
        path.write_bytes(broken)
        try:
            read_torch_file(path)
        except ValueError as error:
            assert "a.pt" in str(error)


def test_a_zip_file_that_claims_to_span_several_disks_is_refused(tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.ones(2)}, path)
    data = path.read_bytes()
    # The locator of a zip64 directory, with two disks, before the usual end of the directory.
    end = data.rindex(b"PK\x05\x06")
    locator = b"PK\x06\x07" + (0).to_bytes(4, "little") + bytes(8) + (2).to_bytes(4, "little")
    start = end - len(locator) if data[end - 20 : end - 16] == b"PK\x06\x07" else end
    path.write_bytes(data[:start] + locator + data[end:])
    with pytest.raises(InputError, match=r"weights.pth: damaged or truncated \(.*disks"):
        read_torch_file(path)
