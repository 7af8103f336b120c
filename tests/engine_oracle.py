"""What the engine's tests share: recorded outputs, random clouds, and convolution by definition."""

from __future__ import annotations

import json
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor

from sparsefeat.sparse import SparseTensor
from sparsefeat.sparse.arithmetic import plain

if TYPE_CHECKING:
    from conftest import Golden

RECORDED: set[str] = set()
"""Names of the recorded outputs that some test compares with."""

TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-9}
PRECISIONS = pytest.mark.parametrize("dtype", TOLERANCE, ids=["float32", "float64"])

PATHS = {
    "default": {},
    "unfolded": {"unfolds": lambda *_: True},
    "unfolded in blocks": {
        "unfolds": lambda *_: True,
        "UNFOLDED_BYTES": 2**14,
        "WINDOW_BYTES": {"cpu": 2**14},
    },
    "unfolded from pairs": {"unfolds": lambda *_: True, "UNFOLDED_BYTES": 2**14, "BOX_BYTES": 0},
    "by cell": {"unfolds": lambda *_: False},
    "by cell in blocks": {
        "unfolds": lambda *_: False,
        "BLOCK_NUMBERS": {"cpu": 0},
        "LEAST_SEGMENT": 0,
    },
}
"""Settings that force each way of convolving in arithmetic/plain.py."""

PATHS_AND_PRECISIONS = pytest.mark.parametrize(
    "path, dtype",
    [*((path, torch.float64) for path in PATHS), ("default", torch.float32)],
    ids=[*(f"{path}-float64" for path in PATHS), "default-float32"],
)


def recorded(*names: str):
    """Parametrize a test by ``name`` over recorded outputs, and note that they are tested."""
    RECORDED.update(names)
    return pytest.mark.parametrize("name", names)


def take_path(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """Make every convolution go the way that ``PATHS`` calls so."""
    for setting, value in PATHS[path].items():
        assert hasattr(plain, setting)
        monkeypatch.setattr(plain, setting, value)


class Record:
    """One recorded output: arrays as tensors, floating ones in the precision asked for."""

    def __init__(self, golden: Golden, name: str, dtype: torch.dtype = torch.float64):
        with np.load(golden / f"{name}.npz") as arrays:
            self.arrays = {key: arrays[key] for key in arrays.files}
        self.meta = json.loads(bytes(self.arrays.pop("meta")))
        self.dtype = dtype

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def __getitem__(self, key: str) -> Tensor:
        tensor = torch.from_numpy(self.arrays[key])
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def leaf(self, key: str) -> Tensor:
        """An array as an input to differentiate with respect to."""
        return self[key].clone().requires_grad_()


def assert_close(actual: Tensor, expected: Tensor, tolerance: float | None = None) -> None:
    """Largest difference, relative to the largest expected value, within the tolerance of the precision."""
    assert actual.shape == expected.shape, (tuple(actual.shape), tuple(expected.shape))
    if actual.numel() == 0:
        return
    tolerance = TOLERANCE[actual.dtype] if tolerance is None else tolerance
    difference = (actual.detach().double() - expected.detach().double()).abs().max().item()
    scale = max(expected.detach().double().abs().max().item(), 1e-3)
    assert difference <= tolerance * scale, f"off by {difference:.3g}, largest value {scale:.3g}"


def rows_at(coordinates: Tensor, wanted: Tensor) -> Tensor:
    """Rows of ``coordinates`` in the order of ``wanted``; both must hold the same set, each once."""
    rows = {tuple(c): row for row, c in enumerate(coordinates.tolist())}
    keys = [tuple(c) for c in wanted.tolist()]
    assert len(rows) == len(coordinates), "a coordinate occurs twice"
    assert set(rows) == set(keys) and len(keys) == len(rows), (
        f"{len(rows)} coordinates, {len(keys)} expected, {len(set(rows) & set(keys))} in common"
    )
    return torch.tensor([rows[key] for key in keys], dtype=torch.int64)


def cloud(
    voxels: int, seed: int = 0, dimension: int = 3, batches: int = 2, side: int = 6, stride: int = 1
) -> Tensor:
    """About ``voxels`` distinct coordinates (V, 1 + D) int32 in random row order, half of them negative."""
    generator = torch.Generator().manual_seed(seed)
    space = (
        torch.randint(-side // 2, side - side // 2, (voxels, dimension), generator=generator)
        * stride
    )
    batch = torch.randint(0, batches, (voxels, 1), generator=generator)
    distinct = torch.unique(torch.cat([batch, space], 1), dim=0).int()
    return distinct[torch.randperm(len(distinct), generator=generator)]


def numbers(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Normal numbers."""
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    ).to(dtype)


def sparse(
    coordinates: Tensor, channels: int = 3, seed: int = 0, grad: bool = False, **keywords
) -> SparseTensor:
    """A sparse tensor of normal numbers."""
    features = numbers(len(coordinates), channels, seed=seed).requires_grad_(grad)
    return SparseTensor(features, coordinates, reduce="error", **keywords)


def window(size, dilation, tensor_stride) -> list[tuple[int, ...]]:
    """Offsets of a cube, the first axis fastest; an odd axis centred, an even one from 0."""
    axes = [
        [(i - size_ // 2 if size_ % 2 else i) * d * s for i in range(size_)]
        for size_, d, s in zip(size, dilation, tensor_stride)
    ]
    return [tuple(reversed(offset)) for offset in product(*reversed(axes))]


def neighbours(
    source: Tensor, target: Tensor, offsets: list[tuple[int, ...]]
) -> list[tuple[int, int, int]]:
    """All (cell, source row, target row) with source = target + offset[cell], by looking each one up."""
    rows = {tuple(c): row for row, c in enumerate(source.tolist())}
    found = []
    for cell, offset in enumerate(offsets):
        for out, (batch, *space) in enumerate(target.tolist()):
            row = rows.get((batch, *(c + o for c, o in zip(space, offset))))
            if row is not None:
                found.append((cell, row, out))
    return found


def convolve_by_definition(
    features: Tensor,
    weight: Tensor,
    triples: list[tuple[int, int, int]],
    rows: int,
    transposed: bool = False,
) -> Tensor:
    """Sum of ``weight[cell]^T features[row]`` over the triples; ``transposed`` swaps the rows' roles."""
    out = [features.new_zeros(weight.shape[2]) for _ in range(rows)]
    for cell, a, b in triples:
        source, target = (b, a) if transposed else (a, b)
        out[target] = out[target] + features[source] @ weight[cell]
    return torch.stack(out) if out else features.new_zeros(0, weight.shape[2])
