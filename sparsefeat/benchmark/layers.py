"""Measuring a single layer: its map, its forward and its backward pass, engine beside engine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sparsefeat.benchmark import floors
from sparsefeat.benchmark.cases import LayerCase
from sparsefeat.benchmark.clouds import Cloud
from sparsefeat.benchmark.engines import Ours, Prepared
from sparsefeat.benchmark.timing import Timing, device_peak, time_interleaved
from sparsefeat.errors import InputError
from sparsefeat.sparse.precision import allows_tf32

TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10, torch.float16: 2e-2, torch.bfloat16: 1e-1}
"""Largest difference to our numbers, as a share of their largest, that still counts as the same."""

TOLERANCE_TF32 = 1e-2
"""The same where float32 goes through tf32, which has float16's ten bits."""

PRODUCTS = "matrix products"
GATHERS = "gathers"


@dataclass
class Measurement:
    """One operation of one case.

    Attributes:
        voxels, pairs: size of the problem; pairs 0 where they do not matter.
        timings: by contender; ``PRODUCTS`` are the bare products of the same sizes, ``GATHERS`` the fetching of
            their rows alone.
        errors: largest difference to our result, as a share of its largest value, of who was compared.
        absent: who was left out, and why.
        flops, moved_bytes: what any engine has to compute and move.
        memory_bytes: at the height of the operation, where that was measured. On CUDA what the operation takes
            beyond inputs, weights and kept maps, on a CPU all that a process of its own has.
    """

    case: str
    operation: str
    voxels: int
    pairs: int
    timings: dict[str, Timing]
    errors: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)
    flops: int = 0
    moved_bytes: int = 0
    memory_bytes: int | None = None


@dataclass(frozen=True)
class Setting:
    """Where, in what precision and how long to measure: ``runs`` rounds, or fewer within ``seconds``."""

    device: torch.device
    dtype: torch.dtype = torch.float32
    runs: int = 7
    seconds: float = 10.0

    @property
    def tolerance(self) -> float:
        """Largest difference that still counts as the same."""
        if self.dtype == torch.float32 and self.device.type == "cuda" and allows_tf32():
            return TOLERANCE_TF32
        return TOLERANCE[self.dtype]


def measure_layer(
    case: LayerCase, cloud: Cloud, engines: list, setting: Setting
) -> list[Measurement]:
    """Map, forward and backward of a layer, every engine's numbers compared with ours beforehand."""
    generator = torch.Generator().manual_seed(0)
    volume = case.kernel_size**3
    kernel = (
        torch.randn(volume, case.c_in, case.c_out, generator=generator)
        / (volume * case.c_in) ** 0.5
    )
    kernel = kernel.to(setting.device, setting.dtype)
    coordinates = cloud.coordinates.to(setting.device)
    prepared: dict[str, Prepared] = {}
    absent: dict[str, str] = {}
    for engine in engines:
        try:
            prepared[engine.name] = engine.prepare(case, coordinates, kernel)
        except (
            Exception
        ) as error:  # another's engine can fail in any way, and ours is measured all the same
            if engine.name == Ours.name:
                raise
            absent[engine.name] = reason(error)
    ours = prepared[Ours.name]
    plan = ours.plan
    counts, n_in = plan.counts, plan.n_in
    features = torch.randn(n_in, case.c_in, generator=generator).to(kernel)
    # With one channel it is a network's first layer, whose input is data and asks for no gradient.
    features.requires_grad_(case.c_in > 1)
    weights = torch.randn(len(ours.coordinates), case.c_out, generator=generator).to(kernel)
    errors, rows = _compare(prepared, features, weights, absent, setting.tolerance)
    pairs, n_out = sum(counts), len(ours.coordinates)
    flops = 2 * pairs * case.c_in * case.c_out

    def timed(
        operation: str, calls: dict[str, Callable], backward: bool = False, arithmetic: bool = True
    ):
        if arithmetic:
            products = floors.products(
                counts,
                case.c_in,
                case.c_out,
                setting.device,
                setting.dtype,
                backward,
                features.requires_grad,
            )
            calls[PRODUCTS] = floors.captured(products, setting.device)
            if setting.device.type == "cpu" and case.c_in > 1:
                # With one channel, or on a device with kernels of its own, rows are not fetched apart.
                calls[GATHERS] = floors.gathers(
                    plan, case.c_in, case.c_out, setting.dtype, backward
                )
        timings = time_interleaved(calls, setting.device, setting.runs, setting.seconds)
        moved = floors.bytes_moved(
            n_in, n_out, volume, case.c_in, case.c_out, kernel.element_size(), backward
        )
        return Measurement(
            case.name,
            operation,
            len(coordinates),
            pairs,
            timings,
            errors,
            absent,
            flops * (1 + (backward and features.requires_grad)) if arithmetic else 0,
            moved if arithmetic else 0,
        )

    maps = {name: p.make_map for name, p in prepared.items() if p.make_map is not None}
    measured = [timed("map", maps, arithmetic=False)]
    inputs = {name: _inputs(p, features) for name, p in prepared.items()}
    passes = {name: _forward(p, inputs[name]) for name, p in prepared.items()}
    backwards = {
        name: _backward(p, inputs[name], weights[rows[name]]) for name, p in prepared.items()
    }
    measured += [timed("forward", dict(passes)), timed("backward", dict(backwards), backward=True)]
    if setting.device.type == "cuda":
        measured[1].memory_bytes = device_peak(passes[Ours.name], setting.device)
        measured[2].memory_bytes = device_peak(backwards[Ours.name], setting.device)
    return measured


def reason(error: Exception) -> str:
    """One line that says why an engine was left out."""
    return (f"{type(error).__name__}: {error}".splitlines() or [type(error).__name__])[0][:300]


def _inputs(prepared: Prepared, features: Tensor) -> Tensor:
    """The features in the order that the engine takes them in."""
    if prepared.rows is None:
        return features
    return features.detach()[prepared.rows].requires_grad_(features.requires_grad)


def _forward(prepared: Prepared, features: Tensor) -> Callable[[], object]:
    def call() -> Tensor:
        with torch.no_grad(), prepared.around():
            return prepared.forward(features)

    return call


def _backward(prepared: Prepared, features: Tensor, weights: Tensor) -> Callable[[], object]:
    with prepared.around():
        out = prepared.forward(features)
    wanted = [t for t in (features, prepared.weight) if t.requires_grad]

    def call() -> object:
        with prepared.around():
            return torch.autograd.grad(out, wanted, weights, retain_graph=True)

    return call


def _compare(
    prepared: dict[str, Prepared],
    features: Tensor,
    weights: Tensor,
    absent: dict[str, str],
    tolerance: float,
) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Drop from ``prepared`` who computes something else; errors, and the row of ours for each of their rows."""
    reference = prepared[Ours.name]
    wanted = _results(reference, features, weights)
    order = _order(reference.coordinates)
    errors = {}
    rows = {Ours.name: torch.arange(len(order), device=order.device)}
    for name, other in list(prepared.items()):
        if name == Ours.name:
            continue
        try:
            same = (
                reference.coordinates[order].tolist()
                == other.coordinates[_order(other.coordinates)].tolist()
            )
            if not same:
                raise NotImplementedError(
                    f"has {len(other.coordinates)} outputs, ours {len(reference.coordinates)}, or others"
                )
            rows[name] = torch.empty_like(order)
            rows[name][_order(other.coordinates)] = order
            found = _results(other, features, weights[rows[name]])
            found[0] = torch.empty_like(found[0]).index_copy_(0, rows[name], found[0])
            errors[name] = max(difference(a, b) for a, b in zip(found, wanted))
            if not errors[name] <= tolerance:
                raise InputError(f"its numbers differ from ours by {errors[name]:.1e}")
        except (
            Exception
        ) as error:  # another's engine can fail in any way, and ours is measured all the same
            absent[name] = reason(error)
            del prepared[name]
    return errors, rows


def _results(prepared: Prepared, features: Tensor, weights: Tensor) -> list[Tensor]:
    mine = _inputs(prepared, features)
    wanted = [t for t in (mine, prepared.weight) if t.requires_grad]
    with prepared.around():
        out = prepared.forward(mine)
        *to_features, to_weight = torch.autograd.grad(out, wanted, weights)
    if prepared.rows is not None:
        to_features = [torch.empty_like(g).index_copy_(0, prepared.rows, g) for g in to_features]
    return [out.detach(), prepared.as_kernel(to_weight), *to_features]


def difference(a: Tensor, b: Tensor) -> float:
    """Largest difference as a share of the largest number of ``b``; 1e30 where it is no number, for JSON's sake."""
    share = ((a - b).abs().max() / b.abs().max().clamp(min=1e-30)).double()
    return share.nan_to_num(1e30, 1e30).clamp(max=1e30).item()


def _order(coordinates: Tensor) -> Tensor:
    """Rows in lexicographic order. Shape: (V, 4) -> (V,)."""
    return torch.unique(coordinates.long(), dim=0, return_inverse=True)[1].argsort()
