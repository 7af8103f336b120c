"""Points to voxels, on numpy arrays or tensors (MinkowskiEngine.utils.quantization)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sparsefeat.minkowski.errors import ArgumentError
from sparsefeat.sparse import quantize as engine_quantize
from sparsefeat.sparse.coordinates import check_coordinates, unique_first

Array = np.ndarray | Tensor


def fnv_hash_vec(arr: np.ndarray) -> np.ndarray:
    """A 64-bit hash of each row, FNV-1 over its values. Shape: (N, D) -> (N,) uint64."""
    if arr.ndim != 2:
        raise ArgumentError(f"fnv_hash_vec: expected shape (N, D), got {arr.shape}")
    columns = arr.astype(np.int64).view(np.uint64)
    hashed = np.full(len(arr), 14695981039346656037, dtype=np.uint64)
    for column in columns.T:
        hashed = (hashed * np.uint64(1099511628211)) ^ column
    return hashed


def ravel_hash_vec(arr: np.ndarray) -> np.ndarray:
    """A number for each distinct row: its place in the bounding box. Shape: (N, D) -> (N,) uint64."""
    if arr.ndim != 2:
        raise ArgumentError(f"ravel_hash_vec: expected shape (N, D), got {arr.shape}")
    relative = (arr - arr.min(0)).astype(np.uint64)
    extent = relative.max(0) + np.uint64(1)
    keys = np.zeros(len(arr), dtype=np.uint64)
    for column, size in zip(relative.T, extent):
        keys = keys * size + column
    return keys


def _unique_rows(coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """First occurrence of each distinct row, and for every row its place among them."""
    return unique_first(check_coordinates(torch.nn.functional.pad(coordinates, (1, 0))))


def quantize_th(coords: Tensor) -> list[Tensor]:
    """Distinct rows of integers. Shape: (N, D) -> indices (V,) of first occurrences, inverse (N,), int64."""
    return list(_unique_rows(coords))


def quantize_np(coords: np.ndarray) -> list[np.ndarray]:
    """As :func:`quantize_th`, for numpy."""
    return [
        part.numpy().astype(np.int32)
        for part in _unique_rows(torch.from_numpy(np.ascontiguousarray(coords)))
    ]


def quantize_label_th(coords: Tensor, labels: Tensor, invalid_label: int) -> list[Tensor]:
    """Indices (V,), inverse (N,), labels (V,) int64; ``invalid_label`` where a voxel's points disagree.

    Shape: coords (N, D), labels (N,) or (N, 1).
    """
    if labels.numel() != len(coords):
        raise ArgumentError(
            f"labels: expected one for each of {len(coords)} points, got {tuple(labels.shape)}"
        )
    out = engine_quantize(coords, labels=labels.reshape(-1).long(), ignore_label=invalid_label)
    return [out.index, out.inverse, out.labels]


def quantize_label_np(
    coords: np.ndarray, labels: np.ndarray, invalid_label: int
) -> list[np.ndarray]:
    """As :func:`quantize_label_th`, for numpy, int32."""
    tensors = quantize_label_th(
        torch.from_numpy(np.ascontiguousarray(coords)),
        torch.from_numpy(labels.astype(np.int64)),
        invalid_label,
    )
    return [part.numpy().astype(np.int32) for part in tensors]


def quantize(coords: Array) -> list[Array]:
    """Indices of the first occurrence of each distinct row, and the inverse map; see :func:`quantize_th`."""
    return quantize_np(coords) if isinstance(coords, np.ndarray) else quantize_th(coords)


def quantize_label(coords: Array, labels: Array, ignore_label: int) -> list[Array]:
    """Indices, inverse map and labels; see :func:`quantize_label_th`."""
    if not isinstance(labels, np.ndarray if isinstance(coords, np.ndarray) else Tensor):
        raise ArgumentError(
            f"labels: expected the type of the coordinates, {type(coords).__name__}, got {type(labels).__name__}"
        )
    operation = quantize_label_np if isinstance(coords, np.ndarray) else quantize_label_th
    return operation(coords, labels, ignore_label)


def _voxels(coordinates: Array, quantization_size) -> Array:
    """``floor(coordinates / size)`` as int32 of the same kind."""
    if quantization_size is not None:
        if np.isscalar(quantization_size):
            sizes = [quantization_size]
        elif isinstance(quantization_size, (Sequence, np.ndarray, Tensor)):
            sizes = [float(s) for s in quantization_size]
            if len(sizes) != coordinates.shape[1]:
                raise ArgumentError(
                    f"quantization_size: expected 1 or {coordinates.shape[1]} values, got {sizes}"
                )
        else:
            raise ArgumentError(
                f"quantization_size: expected a number or one per axis, got {quantization_size!r}"
            )
        if not all(s > 0 for s in sizes):
            raise ArgumentError(
                f"quantization_size: expected positive lengths, got {quantization_size}"
            )
        if isinstance(coordinates, Tensor):
            coordinates = coordinates / torch.tensor(
                sizes, dtype=_quotient_dtype(coordinates), device=coordinates.device
            )
        elif sizes != [1]:
            if coordinates.dtype == np.float16:
                coordinates = coordinates.astype(np.float32)
            coordinates = coordinates / (sizes[0] if len(sizes) == 1 else np.array(sizes))
    numbers = (
        torch.from_numpy(np.ascontiguousarray(coordinates))
        if isinstance(coordinates, np.ndarray)
        else coordinates
    )
    voxels = check_coordinates(torch.nn.functional.pad(numbers, (1, 0)))[:, 1:].contiguous()
    return voxels.numpy() if isinstance(coordinates, np.ndarray) else voxels


def _quotient_dtype(coordinates: Tensor) -> torch.dtype:
    """Float64 for integers, as numpy has it: float32 has no odd numbers above 2^24, nor half types above 2^11."""
    if not coordinates.is_floating_point():
        return torch.float64
    return torch.promote_types(coordinates.dtype, torch.float32)


def sparse_quantize(
    coordinates: Array,
    features: Array | None = None,
    labels: Array | None = None,
    ignore_label: int = -100,
    return_index: bool = False,
    return_inverse: bool = False,
    return_maps_only: bool = False,
    quantization_size: float | Sequence | Array | None = None,
    device: str | torch.device = "cpu",
):
    """Round points down to voxels and keep the first point of each, in input order.

    Args:
        coordinates: Shape (N, D), array or tensor.
        features: Shape (N, C), array or tensor.
        labels: Shape (N,) or (N, 1) integers, of the type of ``coordinates``; a voxel whose points disagree gets ``ignore_label``.
        return_index: also return the row (V,) of each voxel's first point.
        return_inverse: also return the voxel (N,) of each point; needs ``return_index``.
        return_maps_only: return these rows alone (and the inverse where asked for).
        quantization_size: edge of a voxel in the unit of ``coordinates``, one number or D; None: 1.
        device: where voxels and maps go, without labels.

    Returns:
        The voxels (V, D) int32, then of features, labels, index, inverse those given or asked for. Without
        labels voxels and maps are tensors whatever came in; with labels they are of the kind that came in.

    Raises:
        ValueError: lengths differ, sizes not positive, coordinates not finite.
    """
    if not isinstance(coordinates, (np.ndarray, Tensor)) or coordinates.ndim != 2:
        raise ArgumentError(
            f"sparse_quantize: expected an array or tensor (N, D), got {type(coordinates).__name__}"
        )
    if return_inverse and not return_index:
        raise ArgumentError("sparse_quantize: return_inverse needs return_index")
    for name, other in (("features", features), ("labels", labels)):
        if other is not None and len(other) != len(coordinates):
            raise ArgumentError(
                f"sparse_quantize: {len(coordinates)} coordinates but {len(other)} {name}"
            )
    voxels = _voxels(coordinates, quantization_size)
    if labels is None:
        voxels = torch.as_tensor(voxels).to(device)
        index, inverse = _unique_rows(voxels)
        kept_labels = []
    else:
        index, inverse, kept = quantize_label(voxels, labels, ignore_label)
        kept_labels = [kept]
    if return_maps_only:
        return (index, inverse) if return_inverse else index
    out = [voxels[index]]
    if features is not None:
        out.append(
            features[index.cpu()]
            if isinstance(index, Tensor) and not _on(features, index)
            else features[index]
        )
    out += kept_labels
    out += [index] if return_index else []
    out += [inverse] if return_inverse else []
    return out[0] if len(out) == 1 else tuple(out)


def _on(features: Array, index: Tensor) -> bool:
    return isinstance(features, Tensor) and features.device == index.device


def unique_coordinate_map(coordinates: Tensor, tensor_stride=1) -> tuple[Tensor, Tensor]:
    """First rows (V,) of distinct coordinates (N, 1 + D), and for every row its place among them (N,)."""
    return unique_first(check_coordinates(coordinates))
