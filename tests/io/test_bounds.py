"""Files that promise or unfold to more than they hold are refused at once, in one line."""

from __future__ import annotations

import io
import json
import pickle
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from sparsefeat.checkpoint import from_pretrained, read_checkpoint
from sparsefeat.data.fragments import load_viewpoint
from sparsefeat.io import yaml12
from sparsefeat.io.gtlog import read_log, read_overlaps
from sparsefeat.io.meshes import read_mesh
from sparsefeat.io.pointcloud import read_points
from sparsefeat.io.torchfile import read_torch_file

HUGE = 9_999_999_999


def refused(read, path: Path, said: str, most: int = 50_000_000) -> None:
    """Reading raises one line that names the file, with little memory."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=said) as caught:
            read(path)
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


@pytest.mark.parametrize("form", ["ascii", "binary_little_endian"])
@pytest.mark.parametrize("element", ["vertex", "face", "strange"])
@pytest.mark.parametrize("read", [read_points, read_mesh])
def test_a_ply_that_promises_ten_billion_rows(tmp_path, form, element, read):
    counts = {"vertex": 1, "face": 1, "strange": 1} | {element: HUGE}
    header = f"ply\nformat {form} 1.0\nelement strange {counts['strange']}\nproperty uchar a\n"
    header += (
        f"element vertex {counts['vertex']}\nproperty float x\nproperty float y\nproperty float z\n"
    )
    header += f"element face {counts['face']}\nproperty list uchar int vertex_indices\nend_header\n"
    body = b"1\n0 0 0\n3 0 0 0\n" if form == "ascii" else b"\1" + bytes(12) + b"\3" + bytes(12)
    (tmp_path / "a.ply").write_bytes(header.encode() + body)
    refused(read, tmp_path / "a.ply", "cut off")


def test_a_ply_element_without_properties_takes_no_time(tmp_path):
    text = f"ply\nformat ascii 1.0\nelement nothing {HUGE}\nelement vertex 1\nproperty float x\nproperty float y\n"
    text += "property float z\nend_header\n1 2 3\n"
    for form, body in (("ascii", "1 2 3\n"), ("binary_little_endian", "")):
        data = text.replace("ascii", form).partition("1 2 3\n")[0].encode()
        (tmp_path / "a.ply").write_bytes(
            data + (body.encode() or np.array([1, 2, 3], "<f4").tobytes())
        )
        assert read_points(tmp_path / "a.ply").points.tolist() == [[1, 2, 3]]


def npy_header(shape: str, descr: str = "'<f8'") -> bytes:
    header = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}"
    header += " " * (118 - len(header) % 64) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header.encode()


@pytest.mark.parametrize(
    ("shape", "descr"),
    [
        (f"({HUGE}, 3)", "'<f8'"), (f"({10**30}, 3)", "'<f8'"), ("(-1, 3)", "'<f8'"), ("(2, 3", "'<f8'"),
        ("(" * 5000, "'<f8'"), ("(2, 3)", "'<O'"), ("(2, 3)", "'q8'"), (f"({HUGE}, 3)", "'V0'"), ("(2, 3)", "[1]"),
        ("(2, 3)", "'<U99999999'"), ("(2.5, 3)", "'<f8'"), ("()", "'<f8'"), ("(True, 3)", "'<f8'"),
    ],
)  # fmt: skip
def test_arrays_that_their_file_does_not_hold(tmp_path, shape, descr):
    data = npy_header(shape, descr) + bytes(8)
    (tmp_path / "a.npy").write_bytes(data)
    refused(read_points, tmp_path / "a.npy", "a.npy")
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("viewpoint.npy", data)
        archive.writestr("vertices.npy", data)
        archive.writestr("faces.npy", data)
    for read in (read_points, read_mesh, load_viewpoint):
        refused(read, tmp_path / "a.npz", "a.npz")


def test_an_npz_of_six_gigabytes_of_zeros(tmp_path):
    path = tmp_path / "a.npz"
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("points.npy", "w", force_zip64=True) as file,
    ):
        file.write(npy_header(f"({250_000_000}, 3)"))
        for _ in range(6):
            file.write(bytes(50_000_000))
    data = bytearray(path.read_bytes())
    for place in (data.rindex(b"PK\1\2") + 24,):  # the size that the directory promises
        data[place : place + 4] = struct.pack("<I", 4_000_000_000)
    path.write_bytes(data)
    refused(read_points, path, "more than 100 times")


@pytest.mark.parametrize("method", [zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_an_npz_packed_as_numpy_never_does(tmp_path, method):
    buffer = io.BytesIO()
    np.save(buffer, np.zeros((5, 3)))
    with zipfile.ZipFile(tmp_path / "a.npz", "w", method) as archive:
        archive.writestr("points.npy", buffer.getvalue())
    refused(read_points, tmp_path / "a.npz", "packed in another way")


# --- YAML ---

LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{new}: &{new} [{', '.join(['*' + old] * 10)}]\n" for old, new in zip("abcdefgh", "bcdefghi")
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{new}: &{new} {{<<: [{', '.join(['*' + old] * 10)}]}}\n"
    for old, new in zip("abcdefgh", "bcdefghi")
)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("&a [*a]", "contains itself"),
        ("a: &a {b: *a}", "contains itself"),
        ("? &a [x, *a]\n: 1", "contains itself"),
        (LAUGHS, "aliases that stand for"),
        (MERGES, "aliases that stand for"),
        ("[" * 20_000, "nested too deeply|not valid YAML"),
        ("a: " + "{b: " * 20_000, "nested too deeply|not valid YAML"),
        ("- " * 20_000 + "x", "nested too deeply|not valid YAML"),
        ("a: !!bool perhaps", "not valid YAML"),
        ("a: !!int x", "not valid YAML"),
        ("a: !!float x", "not valid YAML"),
        ("a: !!timestamp x", "not valid YAML"),
        ("a: !!binary ' '", "not valid YAML|no error"),
        ("a: " + "9" * 5000, "not valid YAML"),
        ("a: *b", "undefined alias"),
        ("<<: 5", "not valid YAML"),
    ],
)
def test_yaml_that_folds_into_itself_or_out_of_bounds(text, said):
    try:
        value, _ = yaml12.parse(text, "some.yaml")
    except ValueError as error:
        assert str(error).startswith("some.yaml") and "\n" not in str(error)
    else:
        assert said.endswith("no error") and value == {"a": b""}


def test_aliases_that_people_write_are_read():
    text = "base: &b {lr: 1, steps: [1, 2]}\none: *b\ntwo: {<<: *b, lr: 2}\n"
    assert yaml12.parse(text, "a")[0] == yaml.safe_load(text)


# --- logs ---


def test_numbers_that_are_none_to_us_are_refused_in_logs(tmp_path):
    rows = "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    for header in ("0 1_0 4", f"0 {'9' * 5000} 4", "0 \u0661 4"):
        (tmp_path / "gt.log").write_text(f"{header}\n{rows}", encoding="utf-8")
        refused(read_log, tmp_path / "gt.log", "line 1: expected a block header")
    (tmp_path / "gt.log").write_text("0 1 4\n" + rows.replace("1 0 0 0", "1e200 0 0 0"))
    refused(read_log, tmp_path / "gt.log", "not a rigid motion")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_skipped(tmp_path, encoding):
    rows = "1 0 0 0\n0 1 0 0\n0 0 1 0\n0 0 0 1\n"
    (tmp_path / "gt.log").write_text(f"0 1 4\n{rows}", encoding=encoding)
    assert read_log(tmp_path / "gt.log")[0][:3] == (0, 1, 4)
    (tmp_path / "overlap.log").write_text("0,1,0.5\n", encoding=encoding)
    assert read_overlaps(tmp_path / "overlap.log") == {(0, 1): 0.5}
    assert yaml12.parse("\ufeffa: 1", "x")[0] == {"a": 1}


# --- checkpoints ---


def torch_zip(path: Path, data: bytes, method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", bytes(4))
    return path


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


MILLION = text("x" * 1_000_000) + b"q\0"
NESTED = (
    b"\x80\x02]q\0" + b"0(h\0h\0lq\0" * 40 + b"0"
)  # lists that hold the last one twice, 2^40 in all
DEEP = b"\x80\x02)" + b"\x85" * 150_000


@pytest.mark.parametrize(
    ("data", "said"),
    [
        # Copies of a long text, made by three bytes each.
        (b"\x80\x02" + MILLION + b"(c_codecs\nencode\nq\1h\0\x85R" + b"h\1h\0\x85R" * 10_000 + b"l.", "many copies|damaged"),
        (b"\x80\x02" + MILLION + b"(" + b"ctorch\ndevice\nh\0\x85R" * 50_000 + b"l.", "many copies|damaged"),
        # Dictionaries copied over and over.
        (b"\x80\x02}q\0(" + b"".join(b"J" + struct.pack("<i", i) + b"K\1" for i in range(20_000)) + b"u0("
         + b"ccollections\nOrderedDict\nh\0\x85R" * 5_000 + b"l.", "many copies"),
        (b"\x80\x02}q\0(" + b"".join(b"J" + struct.pack("<i", i) + b"K\1" for i in range(20_000)) + b"u0("
         + b"ceasydict\nEasyDict\n)\x81h\0b" * 5_000 + b"l.", "many copies"),
        # What is written out where it is shown.
        (NESTED + b"ctorch\ndevice\nh\0\x85R.", "damaged pickle"),
        (NESTED + b"cnumpy\ndtype\nh\0\x85R.", "numpy values of type a list"),
        (NESTED + b"}h\0K\1s.", "damaged pickle"),
        (NESTED + b"h\0Q.", "a storage in a form that torch does not write"),
        # Deep enough to overflow the interpreter's stack where it is hashed.
        (DEEP + b"q\0}h\0K\1s.", "as a key"),
        (DEEP + b"q\0(h\0K\1d.", "as a key"),
        (DEEP + b"q\0\x8f(h\0\x90.", "as a key|instruction"),
        (DEEP + b"q\0(h\0\x91.", "as a key|instruction"),
        (DEEP + b"q\0cnumpy\ndtype\nX\2\0\0\0f4\x85R(K\3h\0tb.", "damaged|a _Dtype|not a checkpoint"),
        # Places and lengths far beyond the file.
        (b"\x80\x02K\1r\xff\xff\xff\x7f.", "no error"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f.", "damaged"),
        (b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x0fN.", "damaged|no error"),
        (b"\x80\x02\x8b\xff\xff\xff\x7f.", "damaged"),
        (b"\x80\x05\x96\xff\xff\xff\xff\xff\x0f\0\0.", "instruction BYTEARRAY8"),
    ],
)  # fmt: skip
def test_pickles_that_unfold(tmp_path, data, said):
    path = torch_zip(tmp_path / "a.pth", data)
    if said.endswith("no error"):
        try:
            assert read_torch_file(path) in (1, None)
        except ValueError as error:
            assert "damaged" in str(error)
        return
    refused(read_torch_file, path, said, most=200_000_000)


def test_a_packed_pickle_and_records_that_overlap(tmp_path):
    path = torch_zip(
        tmp_path / "a.pth", b"\x80\x02" + text("x" * 50_000_000) + b".", zipfile.ZIP_DEFLATED
    )
    assert path.stat().st_size < 100_000
    refused(read_torch_file, path, "is packed, which torch never does")


def test_a_deep_dictionary_of_shared_parts_is_searched_once(tmp_path):
    wide = {}
    for _ in range(4):
        wide = {f"k{i}": wide for i in range(300)}
    torch.save(wide, tmp_path / "a.pth")
    refused(read_checkpoint, tmp_path / "a.pth", "no weights under any of")


def test_deep_json_in_a_safetensors_header(tmp_path):
    from safetensors.torch import save_file

    header = {"format": "sparsefeat", "config": "[" * 100_000 + "]" * 100_000}
    save_file({"a": torch.ones(1)}, tmp_path / "a.safetensors", header)
    refused(from_pretrained, tmp_path / "a.safetensors", "its header is damaged .nested too deeply")
    deep = b'{"__metadata__": ' + b'{"a": ' * 50_000
    (tmp_path / "b.safetensors").write_bytes(struct.pack("<Q", len(deep)) + deep)
    refused(from_pretrained, tmp_path / "b.safetensors", "not a safetensors file")
    (tmp_path / "c.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}")
    refused(from_pretrained, tmp_path / "c.safetensors", "not a safetensors file")
    for config in ({"name": "SimpleNetBNE", "depth": 10**9}, {"name": "SimpleNetBNE", "in_channels": 10**30},
                   {"name": "SimpleNetBNE", "channels": [10**12] * 4}, {"name": 5}, {"name": "SimpleNetBNE", "depth": True}):  # fmt: skip
        save_file(
            {"a": torch.ones(1)},
            tmp_path / "d.safetensors",
            {"format": "sparsefeat", "config": json.dumps(config)},
        )
        refused(from_pretrained, tmp_path / "d.safetensors", "d.safetensors")


def test_glb_arrays_that_their_file_does_not_hold(tmp_path):
    content = {
        "asset": {"version": "2.0"}, "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [{"attributes": {"POSITION": 0}, "indices": 0}]}],
        "accessors": [{"componentType": 5126, "type": "VEC3", "count": HUGE}],
    }  # fmt: skip
    data = json.dumps(content).encode()
    data += b" " * (-len(data) % 4)
    head = struct.pack("<4sIII4s", b"glTF", 2, 20 + len(data), len(data), b"JSON")
    (tmp_path / "a.glb").write_bytes(head + data)
    refused(read_mesh, tmp_path / "a.glb", "an array of 9999999999 items")
    (tmp_path / "b.glb").write_bytes(head + b"[" * len(data))
    refused(read_mesh, tmp_path / "b.glb", "not a complete glb mesh")


def test_plain_pickles_of_python_are_no_checkpoints(tmp_path):
    (tmp_path / "a.pth").write_bytes(pickle.dumps({"state_dict": {}}))
    refused(read_torch_file, tmp_path / "a.pth", "a pickle, but not of torch.save")
