"""Small valid files of every format that is read, and what reads each: where mutations start from."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from sparsefeat.checkpoint import from_pretrained, read_checkpoint, read_state
from sparsefeat.data.fragments import load_fragment, load_viewpoint
from sparsefeat.data.rgbd import _read_depth
from sparsefeat.data.shape_files import read_integers, read_landmarks, read_names, read_pairs
from sparsefeat.data.threedmatch import read_scene_list
from sparsefeat.io.config import load_config
from sparsefeat.io.gtlog import read_info, read_log, read_overlaps
from sparsefeat.io.meshes import read_mesh
from sparsefeat.io.pointcloud import read_points

VERTICES = np.array([[0, 0, 0], [1.5, 0, 0], [0, 2.25, 0], [0, 0, 3.125], [-7, 1e-3, 42]])
FACES = np.array([[0, 1, 2], [0, 1, 3], [0, 2, 3], [1, 2, 3], [2, 3, 4]])
COLORS = np.array([[0, 1, 2], [255, 0, 0], [0, 255, 0], [7, 8, 9], [250, 251, 252]])


@dataclass
class _Optimizer:
    lr: float = 0.1
    betas: tuple[float, float] = (0.9, 0.99)


@dataclass
class Config:
    """A configuration with one field of each kind."""

    seed: int = 0
    output: Path = Path("runs")
    kind: Literal["a", "b"] = "a"
    channels: tuple[int, ...] = (1, 2)
    scenes: list[str] | None = None
    optimizer: _Optimizer = field(default_factory=_Optimizer)
    extra: dict[str, float] = field(default_factory=dict)
    anything: Any = None


def read_config(path: Path) -> Config:
    """A configuration that is also a dictionary of names, as the lists of a folder of shapes are."""
    return load_config(Config, path)


READERS: dict[str, tuple[str, Callable[[Path], Any]]] = {
    **{
        f"points{suffix}": (suffix, read_points)
        for suffix in (".ply", ".pcd", ".npz", ".npy", ".xyz", ".off", ".obj")
    },
    **{
        f"mesh{suffix}": (suffix, read_mesh)
        for suffix in (".ply", ".off", ".obj", ".stl", ".glb", ".npz")
    },
    "fragment.pth": (".pth", load_fragment),
    "viewpoint.npz": (".npz", load_viewpoint),
    "checkpoint.pth": (".pth", read_checkpoint),
    "network.pth": (".pth", from_pretrained),
    "weights.pth": (".pth", read_state),
    "network.safetensors": (".safetensors", from_pretrained),
    "config.yaml": (".yaml", read_config),
    "gt.log": (".log", read_log),
    "gt.info": (".info", read_info),
    "gt_overlap.log": (".log", read_overlaps),
    "scenes.txt": (".txt", read_scene_list),
    "names.txt": (".txt", read_names),
    "labels.txt": (".txt", read_integers),
    "landmarks.vts": (".vts", read_landmarks),
    "pairs.txt": (".txt", lambda path: read_pairs(path, ["a", "b", "c"])),
    "depth.png": (".png", _read_depth),
}
"""Name of a reader -> suffix of its files, and the function."""


def corpus(reader: str) -> list[bytes]:
    """Valid files for a reader of :data:`READERS`."""
    kind, _, suffix = reader.rpartition(".")
    makers = {
        "ply": _plys, "pcd": _pcds, "npz": _npzs, "npy": _npys, "xyz": _tables, "off": _offs, "obj": _objs, "stl": _stls,
        "glb": _glbs, "yaml": _yamls, "info": _infos, "vts": _integers, "png": _pngs, "safetensors": _safetensors,
    }  # fmt: skip
    special = {
        "fragment.pth": _fragments, "checkpoint.pth": _checkpoints, "network.pth": _checkpoints,
        "weights.pth": _checkpoints, "gt.log": _logs, "gt_overlap.log": lambda: [b"0,1,0.5\n1,2,0.25\n", b"0 1 1.0\n"],
        "scenes.txt": lambda: [b"# scenes\nkitchen\nhall # two\n"], "names.txt": lambda: [b"head\nleft arm\n"],
        "labels.txt": _integers, "pairs.txt": lambda: [b"a b\nb c\n"],
    }  # fmt: skip
    return (special.get(reader) or makers[suffix])()


def _plys() -> list[bytes]:
    files = []
    for form, order in (("ascii", ""), ("binary_little_endian", "<"), ("binary_big_endian", ">")):
        for polygons in (FACES.tolist(), [[0, 1, 2], [1, 2, 3, 4], [0, 2, 3]]):
            header = f"ply\nformat {form} 1.0\ncomment small\nelement vertex 5\n"
            header += "".join(f"property float {a}\n" for a in "xyz")
            header += "".join(f"property uchar {c}\n" for c in ("red", "green", "blue"))
            header += f"element face {len(polygons)}\nproperty list uchar int vertex_indices\nend_header\n"
            if order:
                body = b"".join(
                    struct.pack(f"{order}3f3B", *v, *c)
                    for v, c in zip(VERTICES, COLORS, strict=True)
                )
                body += b"".join(struct.pack(f"{order}B{len(p)}i", len(p), *p) for p in polygons)
            else:
                lines = [
                    " ".join(map(str, [*v, *c])) for v, c in zip(VERTICES, COLORS, strict=True)
                ]
                body = "\n".join(
                    [*lines, *(" ".join(map(str, [len(p), *p])) for p in polygons), ""]
                ).encode()
            files.append(header.encode() + body)
    strips = "ply\nformat ascii 1.0\nelement vertex 5\nproperty double x\nproperty double y\nproperty double z\n"
    strips += "property list uchar float w\nelement tristrips 1\nproperty list int int vertex_indices\nend_header\n"
    strips += "".join(" ".join(map(str, v)) + " 2 7 8\n" for v in VERTICES) + "8 0 1 2 3 -1 2 3 4\n"
    return [*files, strips.encode()]


def _pcds() -> list[bytes]:
    head = "# .PCD v0.7\nVERSION 0.7\nFIELDS x y z rgb\nSIZE 4 4 4 4\nTYPE F F F U\nCOUNT 1 1 1 1\nWIDTH 5\nHEIGHT 1\n"
    head += "VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 5\nDATA "
    packed = (COLORS << [16, 8, 0]).sum(1)
    table = np.zeros(5, dtype=[("p", "<f4", 3), ("c", "<u4")])
    table["p"], table["c"] = VERTICES, packed
    columns = VERTICES.T.astype("<f4").tobytes() + packed.astype("<u4").tobytes()
    lzf = b"".join(
        bytes([len(columns[i : i + 32]) - 1]) + columns[i : i + 32]
        for i in range(0, len(columns), 32)
    )
    repeated = bytes([3]) + bytes(4) + bytes([7 << 5, 67, 3])
    text = "".join(f"{x} {y} {z} {c}\n" for (x, y, z), c in zip(VERTICES, packed, strict=True))
    return [
        f"{head}ascii\n{text}".encode(),
        f"{head}binary\n".encode() + table.tobytes(),
        f"{head}binary_compressed\n".encode() + struct.pack("<II", len(lzf), len(columns)) + lzf,
        f"{head}binary_compressed\n".encode() + struct.pack("<II", len(repeated), 80) + repeated,
        f"{head}binary_compressed\n".encode()
        + struct.pack("<II", len(columns), len(columns))
        + columns,
    ]


def _npzs() -> list[bytes]:
    files = []
    arrays = {"vertices": VERTICES, "faces": FACES, "viewpoint": np.ones(3), "color": COLORS / 255}
    for save in (np.savez, np.savez_compressed):
        buffer = io.BytesIO()
        save(buffer, **arrays)
        files.append(buffer.getvalue())
    return files


def _npys() -> list[bytes]:
    files = []
    for array in (VERTICES, np.asfortranarray(VERTICES.astype(">f4"))):
        buffer = io.BytesIO()
        np.save(buffer, array)
        files.append(buffer.getvalue())
    return files


def _tables() -> list[bytes]:
    rows = [[*v, *c] for v, c in zip(VERTICES.tolist(), COLORS.tolist(), strict=True)]
    plain = "\n".join(" ".join(map(str, row)) for row in rows)
    return [
        plain.encode(),
        ("5\n" + plain).encode(),
        ("x,y,z,r,g,b\n" + plain.replace(" ", ",")).encode(),
        ("x;y;z;r;g;b\n" + plain.replace(" ", ";").replace(".", ",")).encode(),
        "\n".join(" ".join(f"{v:.3f}".replace(".", ",") for v in row) for row in rows).encode(),
        "\n".join(" ".join(f"{v:.3E}".replace("E", "D") for v in row) for row in rows).encode(),
        "\n".join(",".join(f'"{v}"' for v in row) for row in rows).encode(),
        plain.encode("utf-16"),
        plain.encode("utf-16-le"),
        b"\xef\xbb\xbf# points\r\n" + plain.replace("\n", "\r\n").encode(),
    ]


def _offs() -> list[bytes]:
    points = "".join(" ".join(map(str, v)) + "\n" for v in VERTICES)
    faces = "".join(f"3 {a} {b} {c}\n" for a, b, c in FACES)
    return [
        f"OFF\n# small\n5 5 0\n{points}{faces}".encode(),
        f"COFF 5 5 9\n{points}{faces}".replace("\n", " 1 0 0 1\n")
        .replace("9 1 0 0 1", "9")
        .encode(),
        f"OFF 5 5 9 {points}{faces}".replace("\n", " ").encode(),
        f"OFF5 2 0\n{points}4 0 1 2 3\n3 1 2 4 255 0 0\n".encode(),
    ]


def _objs() -> list[bytes]:
    points = "".join("v " + " ".join(map(str, v)) + "\n" for v in VERTICES)
    return [
        (points + "".join(f"f {a + 1} {b + 1} {c + 1}\n" for a, b, c in FACES)).encode(),
        f"mtllib a.mtl\no one # first\n{points}vt 0 0\nvn 0 0 1\nf 1/1/1 2/1/1 3//1\nf -1 -2 \\\n -3 -4\n".encode(),
        f"\tv 9 9 9 0.5 0.5 0.5\n{points}f 1 2 3\n".encode(),
    ]


def _stls() -> list[bytes]:
    triangles = VERTICES[FACES]
    facets = "".join(
        "facet normal 0 0 0\nouter loop\n"
        + "".join(f"vertex {x} {y} {z}\n" for x, y, z in t)
        + "endloop\nendfacet\n"
        for t in triangles
    )
    binary = bytes(80) + struct.pack("<I", 5)
    binary += b"".join(bytes(12) + t.astype("<f4").tobytes() + bytes(2) for t in triangles)
    return [f"solid a\n{facets}endsolid a\nsolid b\n{facets}endsolid b\n".encode(), binary]


def _glbs() -> list[bytes]:
    import trimesh

    scene = trimesh.Scene()
    mesh = trimesh.Trimesh(VERTICES, FACES, process=False)
    scene.add_geometry(mesh, geom_name="a", node_name="here")
    there = trimesh.transformations.translation_matrix([5, 0, 0])
    scene.add_geometry(mesh, geom_name="a", node_name="there", transform=there)
    return [mesh.export(file_type="glb"), scene.export(file_type="glb")]


def _yamls() -> list[bytes]:
    text = "seed: 3\noutput: a/b\nkind: b\nchannels: [1, 2, 0x10]\nscenes: [x, 'on', \"no\"]\n"
    text += "optimizer: &o {lr: 1e-3, betas: [0.5, 1e-1]}\nextra: {a: 1, b: .inf}\n"
    text += "anything:\n- *o\n- !!str 5\n- |\n  text\n- {<<: *o, lr: 2}\n- ~\n- !!set {a, b}\n"
    return [text.encode(), b"\xef\xbb\xbf" + text.encode(), b"a: [x]\nb: &n [y, *n]\n"]


def _logs() -> list[bytes]:
    rows = "1 0 0 0.5\n0 1 0 0\n0 0 1 -2e3\n0 0 0 1\n"
    return [
        f"0 1 3\n{rows}1 2 3\n{rows}".encode(),
        f"0\t 1\t 3\n{rows}".replace("\n", "\r\n").encode(),
    ]


def _infos() -> list[bytes]:
    return [("0 1 3\n" + "".join(" ".join(map(str, row)) + "\n" for row in np.eye(6))).encode()]


def _integers() -> list[bytes]:
    return [b"1\n2\n3\n17\n", b"1 2 3.0 4e0"]


def _pngs() -> list[bytes]:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(np.arange(48, dtype=np.uint16).reshape(6, 8)).save(buffer, format="png")
    return [buffer.getvalue()]


def _network() -> torch.nn.Module:
    from sparsefeat import models

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.SimpleNetBNE(
            1,
            4,
            bn_momentum=0.05,
            normalize_feature=True,
            conv1_kernel_size=3,
            depth=1,
            channels=(2, 2),
            tr_channels=(4, 2),
        ).eval()


def _checkpoints() -> list[bytes]:
    model = _network()
    content = {
        "epoch": 3,
        "state_dict": model.state_dict(),
        "losses": np.array([]),
        "best": np.float32(0.5),
        "optimizer": {"state": {0: {"step": torch.tensor(1.0)}, ("a", 1): torch.Size([2])}, "device": torch.device("cpu")},
        "config": dict(model_n_out=4, conv1_kernel_size=3, voxel_size=0.025, normalize_feature=True),
    }  # fmt: skip
    compiled = {f"_orig_mod.{name}": weights for name, weights in model.state_dict().items()}
    files = []
    for what, zipped in ((content, True), (content, False), (compiled, True)):
        buffer = io.BytesIO()
        torch.save(what, buffer, _use_new_zipfile_serialization=zipped)
        files.append(buffer.getvalue())
    return files


def _fragments() -> list[bytes]:
    files = []
    for what, zipped in ((VERTICES, True), (torch.from_numpy(VERTICES), True), (VERTICES, False)):
        buffer = io.BytesIO()
        torch.save(what, buffer, _use_new_zipfile_serialization=zipped)
        files.append(buffer.getvalue())
    return files


def _safetensors() -> list[bytes]:
    from safetensors.torch import save

    model = _network()
    header = {
        "format": "sparsefeat",
        "config": json.dumps(model.config),
        "voxel_size": "0.05",
        "unit": "m",
        "extra": "{}",
    }
    return [save(model.state_dict(), header), save(model.state_dict())]


def members(data: bytes) -> list[tuple[zipfile.ZipInfo, bytes]] | None:
    """The members of a zip file, or None if ``data`` is none."""
    if not data.startswith(b"PK"):
        return None
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return [(info, archive.read(info)) for info in archive.infolist()]


def repack(parts: list[tuple[zipfile.ZipInfo, bytes]]) -> bytes:
    """A zip file whose sums are right, whatever its members hold."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for info, data in parts:
            archive.writestr(info.filename, data, info.compress_type)
    return buffer.getvalue()
