"""Other engines beside ours, each behind the same few functions; those that are not installed are left out.

A layer is given as its kernel [K, C_in, C_out] in our cell order. What an engine cannot do raises
NotImplementedError with the reason; what it does is compared with ours before anything is timed.
"""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from sparsefeat.benchmark.cases import LayerCase
from sparsefeat.errors import InputError
from sparsefeat.sparse import CoordinateManager, SparseTensor, arithmetic, modules
from sparsefeat.sparse.kernel_map import KernelMap
from sparsefeat.sparse.precision import allows_tf32


@dataclass
class Prepared:
    """One layer of one engine on one cloud, its map built.

    Attributes:
        forward: features (V, C_in) to output (V', C_out), differentiable in them and in the weight.
        weight: the engine's own parameter.
        as_kernel: brings the weight, or its gradient, to [K, C_in, C_out].
        coordinates: of the output, (V', 4).
        make_map: builds the kernel map anew, nothing else; None where the engine has no such step apart.
        rows: which of the given input rows each of its own is, (V,); None where it keeps their order.
        around: what forward and backward passes have to run within.
        plan: the kernel map, of ours alone.
    """

    forward: Callable[[Tensor], Tensor]
    weight: Tensor
    as_kernel: Callable[[Tensor], Tensor]
    coordinates: Tensor
    make_map: Callable[[], object] | None = None
    rows: Tensor | None = None
    around: Callable[[], contextlib.AbstractContextManager] = contextlib.nullcontext
    plan: KernelMap | None = None


class Ours:
    """This engine."""

    name = "sparsefeat"

    def __init__(self) -> None:
        self.version = importlib.import_module("sparsefeat").__version__

    def prepare(self, case: LayerCase, coordinates: Tensor, kernel: Tensor) -> Prepared:
        layer = _layer(modules, case).to(kernel)
        with torch.no_grad():
            layer.kernel.copy_(kernel)
        manager = CoordinateManager(3)
        fine = manager.insert(coordinates)
        coarse = fine if case.stride == 1 else manager.stride(fine, case.stride)
        in_key, out_key = (coarse, fine) if case.transposed else (fine, coarse)

        def forward(features: Tensor) -> Tensor:
            return layer(SparseTensor(features, manager=manager, key=in_key)).F

        def make_map() -> object:
            fresh = CoordinateManager(3)
            source = fresh.insert(coordinates)
            target = source if case.stride == 1 else fresh.stride(source, case.stride)
            return fresh.kernel_map(source, target, layer.window).counts

        plan = manager.kernel_map(fine, coarse, layer.window)
        if case.transposed:
            plan = plan.transpose
        return Prepared(
            forward, layer.kernel, lambda w: w, manager[out_key].coordinates, make_map, plan=plan
        )


class Plain(Ours):
    """This engine in plain PyTorch, for a device where it has kernels of its own, to compare them with."""

    name = "sparsefeat in plain torch"

    def prepare(self, case: LayerCase, coordinates: Tensor, kernel: Tensor) -> Prepared:
        prepared = super().prepare(case, coordinates, kernel)
        prepared.around, prepared.make_map = plain_arithmetic, None
        return prepared


@contextlib.contextmanager
def plain_arithmetic() -> Iterator[None]:
    """Convolutions go by plain PyTorch, on every thread: a backward pass on CUDA has one of its own."""
    before = os.environ.get(arithmetic.VARIABLE)
    os.environ[arithmetic.VARIABLE] = "torch"
    try:
        yield
    finally:
        if before is None:
            del os.environ[arithmetic.VARIABLE]
        else:
            os.environ[arithmetic.VARIABLE] = before


class Minkowski:
    """MinkowskiEngine, where it could be built."""

    name = "MinkowskiEngine"

    def __init__(self) -> None:
        self.module = importlib.import_module("MinkowskiEngine")
        self.version = getattr(self.module, "__version__", "unknown")

    def prepare(self, case: LayerCase, coordinates: Tensor, kernel: Tensor) -> Prepared:
        if case.transposed:
            raise NotImplementedError(
                "its coarse rows come in an order of their own, and the inputs would differ"
            )
        engine = self.module
        layer = _layer(engine, case, "Minkowski").to(kernel)
        with torch.no_grad():
            layer.kernel.copy_(kernel.reshape(layer.kernel.shape))
        x = engine.SparseTensor(kernel.new_zeros(len(coordinates), 1), coordinates=coordinates)
        shape = kernel.shape

        def run(features: Tensor):
            return layer(
                engine.SparseTensor(
                    features,
                    coordinate_map_key=x.coordinate_map_key,
                    coordinate_manager=x.coordinate_manager,
                )
            )

        out = run(kernel.new_zeros(len(coordinates), case.c_in))
        return Prepared(
            lambda features: run(features).F, layer.kernel, lambda w: w.reshape(shape), out.C
        )


class Spconv:
    """spconv's wheels, with two repairs on CPU.

    Its backward pass asks CUDA for a stream; here it is given the default one. And its scatter (2.3.8,
    csrc/sparse/gather.py) shares two pointers among its OpenMP threads, so that with several of them rows are
    added to the wrong sums: here it runs on one thread, its gathers and its products on all.
    """

    name = "spconv"

    def __init__(self) -> None:
        self.module = importlib.import_module("spconv.pytorch")
        self.version = importlib.import_module("spconv").__version__

    def prepare(self, case: LayerCase, coordinates: Tensor, kernel: Tensor) -> Prepared:
        if case.stride != 1 or case.transposed:
            raise NotImplementedError(
                "its strided layers have other outputs: every voxel that a window reaches"
            )
        engine = self.module
        algo = engine.ConvAlgo.Native if kernel.device.type == "cpu" else None
        size = case.kernel_size
        layer = engine.SubMConv3d(
            case.c_in, case.c_out, size, bias=False, indice_key="map", algo=algo
        ).to(kernel)
        # Ours has the first axis fastest, spconv's is [C_out, x, y, z, C_in].
        cube = kernel.view(size, size, size, case.c_in, case.c_out)
        with torch.no_grad():
            layer.weight.copy_(cube.permute(4, 2, 1, 0, 3))
        low = coordinates.amin(0)
        low[0] = 0
        shifted = (coordinates - low).contiguous()
        extent = (shifted[:, 1:].amax(0) + 1).tolist()
        batches = int(coordinates[:, 0].max()) + 1
        operations = importlib.import_module("spconv.pytorch.ops")
        if kernel.device.type == "cpu":
            operations.get_current_stream = lambda: 0
            operations.SpconvOps = _on_one_thread(operations.SpconvOps)
        importlib.import_module("spconv.constants").SPCONV_ALLOW_TF32 = allows_tf32()

        def tensor(features: Tensor, maps: dict):
            x = engine.SparseConvTensor(features, shifted, extent, batches)
            x.indice_dict = maps
            return x

        out = layer(tensor(kernel.new_zeros(len(coordinates), case.c_in), {}))
        maps = dict(out.indice_dict)
        shape = kernel.shape

        def make_map() -> object:
            ones, zeros = [1] * 3, [0] * 3
            return operations.get_indice_pairs(
                shifted,
                batches,
                extent,
                algo,
                [size] * 3,
                ones,
                [size // 2] * 3,
                ones,
                zeros,
                subm=True,
            )

        return Prepared(
            lambda features: layer(tensor(features, dict(maps))).features,
            layer.weight,
            lambda w: w.permute(3, 2, 1, 4, 0).reshape(shape),
            out.indices + low,
            make_map if algo is not None else None,
        )


def _on_one_thread(operators: type) -> type:
    """spconv's operators with a scatter that its threads cannot spoil. Idempotent."""
    if hasattr(operators, "scatter_add_as_released"):
        return operators

    class Repaired(operators):
        scatter_add_as_released = staticmethod(operators.scatter_add_cpu)

        @staticmethod
        def scatter_add_cpu(*args: object) -> None:
            threads = torch.get_num_threads()
            # Its OpenMP calls find torch's library, which was loaded first.
            torch.set_num_threads(1)
            try:
                operators.scatter_add_cpu(*args)
            finally:
                torch.set_num_threads(threads)

    return Repaired


class TorchSparse:
    """TorchSparse; odd kernels have MinkowskiEngine's cell order there."""

    name = "TorchSparse"

    def __init__(self) -> None:
        self.module = importlib.import_module("torchsparse")
        self.layers = importlib.import_module("torchsparse.nn")
        self.version = getattr(self.module, "__version__", "unknown")

    def prepare(self, case: LayerCase, coordinates: Tensor, kernel: Tensor) -> Prepared:
        if case.stride != 1 or case.transposed:
            raise NotImplementedError("its strided layers have other outputs")
        layer = self.layers.Conv3d(case.c_in, case.c_out, kernel_size=case.kernel_size).to(kernel)
        with torch.no_grad():
            layer.kernel.copy_(kernel.reshape(layer.kernel.shape))
        if hasattr(self.module, "backends"):
            self.module.backends.allow_tf32 = allows_tf32()
        shifted = coordinates - coordinates.amin(0)
        x = self.module.SparseTensor(kernel.new_zeros(len(coordinates), case.c_in), shifted)
        layer(x)

        def forward(features: Tensor) -> Tensor:
            again = self.module.SparseTensor(features, shifted)
            again._caches = x._caches
            return layer(again).feats

        shape = kernel.shape
        return Prepared(forward, layer.kernel, lambda w: w.reshape(shape), coordinates)


class WarpConvNet:
    """WarpConvNet (CUDA only); its kernels are [K, C_in, C_out] with the last axis fastest."""

    name = "WarpConvNet"

    def __init__(self) -> None:
        self.voxels = importlib.import_module("warpconvnet.geometry.types.voxels")
        self.layers = importlib.import_module("warpconvnet.nn.modules.sparse_conv")
        self.version = getattr(importlib.import_module("warpconvnet"), "__version__", "unknown")

    def prepare(self, case: LayerCase, coordinates: Tensor, kernel: Tensor) -> Prepared:
        _same_voxels_only(case)
        shape, size = kernel.shape, case.kernel_size
        layer = self.layers.SpatiallySparseConv(case.c_in, case.c_out, size, bias=False).to(kernel)

        def turned(w: Tensor) -> Tensor:
            return w.reshape(size, size, size, *w.shape[1:]).permute(2, 1, 0, 3, 4).reshape(shape)

        with torch.no_grad():
            layer.weight.copy_(turned(kernel))
        batch = coordinates[:, 0].long()
        if bool((batch[1:] < batch[:-1]).any()):
            raise NotImplementedError("its clouds have to come one after the other")
        ends = torch.bincount(batch).cumsum(0)
        x = self.voxels.Voxels(
            batched_coordinates=coordinates[:, 1:].contiguous(),
            batched_features=kernel.new_zeros(len(coordinates), case.c_in),
            offsets=torch.cat([ends.new_zeros(1), ends]).cpu(),
        )
        out = layer(x)
        rows = torch.cat([coordinates[:, :1], out.coordinate_tensor.to(coordinates)], 1)

        def forward(features: Tensor) -> Tensor:
            # Copies of one Voxels share its maps.
            return layer(x.replace(batched_features=features)).feature_tensor

        return Prepared(forward, layer.weight, turned, rows)


class Fvdb:
    """fVDB; its kernels are [C_out, C_in, x, y, z], and its rows come in the order of its own grid."""

    name = "fVDB"

    def __init__(self) -> None:
        self.module = importlib.import_module("fvdb")
        self.version = getattr(self.module, "__version__", "unknown")

    def prepare(self, case: LayerCase, coordinates: Tensor, kernel: Tensor) -> Prepared:
        _same_voxels_only(case)
        engine, size, shape = self.module, case.kernel_size, kernel.shape
        clouds = [
            coordinates[coordinates[:, 0] == b, 1:] for b in range(int(coordinates[:, 0].max()) + 1)
        ]
        grid = engine.GridBatch.from_ijk(engine.JaggedTensor(clouds), voxel_sizes=1, origins=0)

        def make_map() -> object:
            return engine.ConvolutionPlan.from_grid_batch(
                kernel_size=size, stride=1, source_grid=grid, target_grid=grid
            )

        plan = make_map()
        # Ours has the first axis fastest.
        cube = kernel.view(size, size, size, case.c_in, case.c_out).permute(4, 3, 2, 1, 0)
        weight = torch.nn.Parameter(cube.contiguous())
        own = torch.cat([grid.ijk.jidx.to(coordinates)[:, None], grid.ijk.jdata.to(coordinates)], 1)
        rows = torch.empty(len(own), dtype=torch.int64, device=own.device)
        rows[_sorted_rows(own)] = _sorted_rows(coordinates)
        return Prepared(
            lambda features: plan.execute(grid.jagged_like(features), weight).jdata,
            weight,
            lambda w: w.permute(4, 3, 2, 1, 0).reshape(shape),
            own,
            make_map,
            rows,
        )


def _same_voxels_only(case: LayerCase) -> None:
    if case.stride != 1 or case.transposed:
        raise NotImplementedError("only its layers that keep the voxels are compared")


def _sorted_rows(coordinates: Tensor) -> Tensor:
    return torch.unique(coordinates.long(), dim=0, return_inverse=True)[1].argsort()


ENGINES = {
    engine.name: engine for engine in (Ours, Minkowski, Spconv, TorchSparse, WarpConvNet, Fvdb)
}


def installed(names: list[str] | None = None) -> tuple[list, dict[str, str]]:
    """The engines that can be imported, ours first, and why the others cannot.

    Raises:
        InputError: an unknown name.
    """
    for name in names or ():
        if name not in ENGINES:
            raise InputError(f"engine: expected some of {', '.join(ENGINES)}, got {name!r}")
    engines, absent = [], {}
    for name, engine in ENGINES.items():
        if names and name not in names and name != Ours.name:
            continue
        try:
            engines.append(engine())
        except Exception as error:  # another's package can fail to import in any way
            absent[name] = f"{type(error).__name__}: {error}".splitlines()[0]
    return engines, absent


def _layer(module: ModuleType, case: LayerCase, prefix: str = ""):
    kind = getattr(module, f"{prefix}Convolution{'Transpose' if case.transposed else ''}")
    return kind(
        case.c_in, case.c_out, kernel_size=case.kernel_size, stride=case.stride, dimension=3
    )
