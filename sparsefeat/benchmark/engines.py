"""Other engines beside ours, each behind the same few functions; those that are not installed are left out.

A layer is given as its kernel [K, C_in, C_out] in our cell order. What an engine cannot do raises
NotImplementedError with the reason; what it does is compared with ours before anything is timed.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType

import torch
from torch import Tensor

from sparsefeat.benchmark.cases import LayerCase
from sparsefeat.sparse import CoordinateManager, SparseTensor, modules


@dataclass
class Prepared:
    """One layer of one engine on one cloud, its map built.

    Attributes:
        forward: features (V, C_in) to output (V', C_out), differentiable in them and in the weight.
        weight: the engine's own parameter.
        as_kernel: brings the weight, or its gradient, to [K, C_in, C_out].
        coordinates: of the output, (V', 4).
        make_map: builds the kernel map anew, nothing else; None where the engine has no such step apart.
    """

    forward: Callable[[Tensor], Tensor]
    weight: Tensor
    as_kernel: Callable[[Tensor], Tensor]
    coordinates: Tensor
    make_map: Callable[[], object] | None = None


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

        return Prepared(forward, layer.kernel, lambda w: w, manager[out_key].coordinates, make_map)


class Minkowski:
    """MinkowskiEngine, where it could be built."""

    name = "MinkowskiEngine"

    def __init__(self) -> None:
        self.module = importlib.import_module("MinkowskiEngine")
        self.version = getattr(self.module, "__version__", "unknown")

    def prepare(self, case: LayerCase, coordinates: Tensor, kernel: Tensor) -> Prepared:
        if case.transposed:
            raise NotImplementedError("its coarse rows come in an order of their own, and the inputs would differ")
        engine = self.module
        layer = _layer(engine, case, "Minkowski").to(kernel)
        with torch.no_grad():
            layer.kernel.copy_(kernel.reshape(layer.kernel.shape))
        x = engine.SparseTensor(kernel.new_zeros(len(coordinates), 1), coordinates=coordinates)
        shape = kernel.shape

        def run(features: Tensor):
            return layer(
                engine.SparseTensor(
                    features, coordinate_map_key=x.coordinate_map_key, coordinate_manager=x.coordinate_manager
                )
            )

        out = run(kernel.new_zeros(len(coordinates), case.c_in))
        return Prepared(lambda features: run(features).F, layer.kernel, lambda w: w.reshape(shape), out.C)


class Spconv:
    """spconv's wheels. On CPU its backward pass asks CUDA for a stream; here it is given the default one."""

    name = "spconv"

    def __init__(self) -> None:
        self.module = importlib.import_module("spconv.pytorch")
        self.version = importlib.import_module("spconv").__version__

    def prepare(self, case: LayerCase, coordinates: Tensor, kernel: Tensor) -> Prepared:
        if case.stride != 1 or case.transposed:
            raise NotImplementedError("its strided layers have other outputs: every voxel that a window reaches")
        engine = self.module
        algo = engine.ConvAlgo.Native if kernel.device.type == "cpu" else None
        size = case.kernel_size
        layer = engine.SubMConv3d(case.c_in, case.c_out, size, bias=False, indice_key="map", algo=algo).to(kernel)
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
                shifted, batches, extent, algo, [size] * 3, ones, [size // 2] * 3, ones, zeros, subm=True
            )

        return Prepared(
            lambda features: layer(tensor(features, dict(maps))).features, layer.weight,
            lambda w: w.permute(3, 2, 1, 4, 0).reshape(shape), out.indices + low,
            make_map if algo is not None else None,
        )


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
        shifted = coordinates - coordinates.amin(0)
        x = self.module.SparseTensor(kernel.new_zeros(len(coordinates), case.c_in), shifted)
        layer(x)

        def forward(features: Tensor) -> Tensor:
            again = self.module.SparseTensor(features, shifted)
            again._caches = x._caches
            return layer(again).feats

        shape = kernel.shape
        return Prepared(forward, layer.kernel, lambda w: w.reshape(shape), coordinates)


ENGINES = {engine.name: engine for engine in (Ours, Minkowski, Spconv, TorchSparse)}


def installed(names: list[str] | None = None) -> tuple[list, dict[str, str]]:
    """The engines that can be imported, ours first, and why the others cannot.

    Raises:
        ValueError: an unknown name.
    """
    for name in names or ():
        if name not in ENGINES:
            raise ValueError(f"engine: expected some of {', '.join(ENGINES)}, got {name!r}")
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
    return kind(case.c_in, case.c_out, kernel_size=case.kernel_size, stride=case.stride, dimension=3)
