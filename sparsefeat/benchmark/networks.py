"""Measuring a whole network: FCGF's ResUNetBN2C on this engine and, where installed, on MinkowskiEngine."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import torch
from torch import Tensor, nn

from sparsefeat.benchmark import floors
from sparsefeat.benchmark.cases import NetworkCase
from sparsefeat.benchmark.clouds import Cloud
from sparsefeat.benchmark.engines import Minkowski, Ours, Plain, plain_arithmetic
from sparsefeat.benchmark.layers import PRODUCTS, Measurement, Setting, difference, reason
from sparsefeat.benchmark.timing import device_peak, process_peak, time_interleaved
from sparsefeat.errors import InputError
from sparsefeat.models import ResUNetBN2C
from sparsefeat.sparse import SparseTensor, modules

BACKENDS = {Ours.name: "torch", Plain.name: "torch", Minkowski.name: "minkowski"}


def measure_network(
    case: NetworkCase, cloud: Cloud, engines: list, setting: Setting
) -> list[Measurement]:
    """A pass with fresh maps and with kept ones, or a training step with fresh maps; and the memory it takes."""
    networks, absent = {}, {}
    coordinates = cloud.coordinates.to(setting.device)
    for engine in engines:
        if engine.name not in BACKENDS:
            absent[engine.name] = (
                "its strided layers have other outputs, so this network cannot be built from them"
            )
            continue
        try:
            networks[engine.name] = make_network(BACKENDS[engine.name]).to(
                setting.device, setting.dtype
            )
        except (
            Exception
        ) as error:  # another's engine can fail in any way, and ours is measured all the same
            if engine.name == Ours.name:
                raise
            absent[engine.name] = reason(error)
    features = torch.ones(len(coordinates), 1, device=setting.device, dtype=setting.dtype)
    kept = SparseTensor(features, coordinates, reduce="error")
    errors = _compare(networks, kept, absent, setting.tolerance)
    sizes = _layer_sizes(networks[Ours.name], kept)
    step = _training_step if case.training else _inference
    operations = {
        "training step" if case.training else "inference": lambda: _fresh(features, coordinates)
    }
    if not case.training:
        operations["inference, maps kept"] = lambda: kept

    measured = []
    for operation, make_input in operations.items():
        calls: dict[str, Callable] = {
            name: _on(
                name, lambda network=network, make_input=make_input: step(network, make_input())
            )
            for name, network in networks.items()
        }
        calls[PRODUCTS] = _products(sizes, setting, case.training)
        timings = time_interleaved(calls, setting.device, setting.runs, setting.seconds)
        backward = 3 if case.training else 1
        measured.append(
            Measurement(
                case.name,
                operation,
                len(coordinates),
                sum(sum(counts) for counts, *_ in sizes),
                timings,
                errors,
                absent,
                flops=backward * sum(2 * sum(counts) * a * b for counts, a, b, _, _ in sizes),
                moved_bytes=sum(
                    floors.bytes_moved(
                        n_in, n_out, len(counts), a, b, features.element_size(), back
                    )
                    for counts, a, b, n_in, n_out in sizes
                    for back in ((False, True) if case.training else (False,))
                ),
            )
        )
        if setting.device.type == "cuda":
            networks[Ours.name].zero_grad(
                set_to_none=True
            )  # a step makes its gradients: they count
            measured[-1].memory_bytes = device_peak(calls[Ours.name], setting.device)
    if setting.device.type == "cpu":
        measured[0].memory_bytes = memory_in_new_process(case, cloud, setting.dtype)
    return measured


def _on(name: str, call: Callable[[], object]) -> Callable[[], object]:
    """The call with the arithmetic that belongs to a contender."""
    return plain_arithmetic()(call) if name == Plain.name else call


def make_network(backend: str) -> ResUNetBN2C:
    """The network with the same weights at every call, its batch norms not trivial."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = ResUNetBN2C(
            1, 32, bn_momentum=0.05, normalize_feature=True, conv1_kernel_size=7, backend=backend
        )
        for module in network.modules():
            if isinstance(module, nn.BatchNorm1d):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
    return network.eval()


def memory_in_new_process(case: NetworkCase, cloud: Cloud, dtype: torch.dtype) -> int | None:
    """Bytes of memory at most of a process that does nothing else, torch included."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        task = pool.submit(
            _peak_of, case.training, cloud.coordinates.numpy(), dtype, torch.get_num_threads()
        )
        try:
            return task.result()
        except BrokenProcessPool:  # no memory for it, or no way to start one
            return None


def _peak_of(training: bool, coordinates, dtype: torch.dtype, threads: int) -> int | None:
    torch.set_num_threads(threads)
    network = make_network("torch").to(dtype)
    voxels = torch.from_numpy(coordinates)
    for _ in range(2):
        x = _fresh(torch.ones(len(voxels), 1, dtype=dtype), voxels)
        (_training_step if training else _inference)(network, x)
    return process_peak()


def _fresh(features: Tensor, coordinates: Tensor) -> SparseTensor:
    return SparseTensor(features, coordinates, reduce="error")


def _inference(network: nn.Module, x: SparseTensor) -> Tensor:
    network.eval()
    with torch.no_grad():
        return network(x).F


def _training_step(network: nn.Module, x: SparseTensor) -> None:
    network.train()
    network.zero_grad(set_to_none=True)
    network(x).F.float().square().mean().backward()


def _compare(
    networks: dict[str, nn.Module], x: SparseTensor, absent: dict[str, str], tolerance: float
) -> dict[str, float]:
    wanted = _inference(networks[Ours.name], x)
    errors = {}
    for name, network in list(networks.items()):
        if name == Ours.name:
            continue
        try:
            found = _on(name, lambda network=network: _inference(network, x))()
            errors[name] = difference(found, wanted)
            if not errors[name] <= tolerance:
                raise InputError(f"its numbers differ from ours by {errors[name]:.1e}")
        except (
            Exception
        ) as error:  # another's engine can fail in any way, and ours is measured all the same
            absent[name] = reason(error)
            del networks[name]
    return errors


_Sizes = tuple[list[int], int, int, int, int]
"""Pairs per cell, C_in, C_out, rows in, rows out."""


def _layer_sizes(network: nn.Module, x: SparseTensor) -> list[_Sizes]:
    """What each convolution of the network computes on this cloud."""
    sizes: list[_Sizes] = []

    def note(layer: nn.Module, inputs: tuple[SparseTensor, ...], out: SparseTensor) -> None:
        keys = (inputs[0].key, out.key)
        plan = x.manager.kernel_map(*(reversed(keys) if layer.transposed else keys), layer.window)
        sizes.append((plan.counts, layer.in_channels, layer.out_channels, len(inputs[0]), len(out)))

    convolutions = (modules.Convolution, modules.ConvolutionTranspose)
    hooks = [
        m.register_forward_hook(note) for m in network.modules() if isinstance(m, convolutions)
    ]
    try:
        _inference(network, x)
    finally:
        for hook in hooks:
            hook.remove()
    return sizes


def _products(sizes: list[_Sizes], setting: Setting, training: bool) -> Callable[[], None]:
    parts = [
        floors.products(counts, a, b, setting.device, setting.dtype, backward, to_input=a > 1)
        for counts, a, b, *_ in sizes
        for backward in ((False, True) if training else (False,))
    ]

    def call() -> None:
        for part in parts:
            part()

    return floors.captured(call, setting.device)
