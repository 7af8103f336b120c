"""What Triton's kernels go by: tiles of outputs, units of pairs, which arithmetic runs, remembered tuning."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import types
from collections import Counter

import pytest
import torch
from engine_oracle import cloud

from sparsefeat.sparse import CoordinateManager, Kernel, neighbours
from sparsefeat.sparse.backends import arithmetic, tiles, triton_tuning
from sparsefeat.sparse.backends import torch as plain

WINDOWS = pytest.mark.parametrize(
    "size, stride, transposed",
    [(3, 1, False), (3, 1, True), (2, 2, False), (3, 2, True), (4, 2, False), (5, 1, True), (7, 1, False)],
)


def kernel_map(size: int, stride: int, transposed: bool, voxels: int = 120):
    manager = CoordinateManager(3)
    fine = manager.insert(cloud(voxels, side=9))
    plan = manager.kernel_map(fine, fine if stride == 1 else manager.stride(fine, stride), Kernel.of(size))
    return plan.transpose if transposed else plan


def triples(plan) -> Counter:
    return Counter(zip(plan.cells.tolist(), plan.in_rows.tolist(), plan.out_rows.tolist()))


@WINDOWS
@pytest.mark.parametrize("height", [16, 64])
@pytest.mark.parametrize("at_once", [50, 2**24])
def test_tiles_hold_every_pair_once_and_no_cell_in_vain(
    monkeypatch, size, stride, transposed, height, at_once
):
    monkeypatch.setattr(tiles, "PAIRS_AT_ONCE", at_once)
    plan = kernel_map(size, stride, transposed)
    table = tiles.tiles(plan, height)
    rows = table.rows[table.rows >= 0]
    assert sorted(rows.tolist()) == list(range(plan.n_out)) and len(table.rows) % height == 0
    found = Counter()
    for tile, (first, last) in enumerate(zip(table.starts.tolist(), table.starts[1:].tolist())):
        mine = table.rows[tile * height : (tile + 1) * height].tolist()
        cells = table.cells[first:last].tolist()
        assert len(set(cells)) == len(cells)
        for cell, sources in zip(cells, table.sources[first:last].tolist()):
            assert max(sources) >= 0
            found.update((cell, i, o) for i, o in zip(sources, mine) if i >= 0)
    assert found == triples(plan)
    assert tiles.tiles(plan, height) is table


@WINDOWS
def test_units_hold_every_pair_once_and_one_cell_each(size, stride, transposed):
    plan = kernel_map(size, stride, transposed)
    table = tiles.units(plan, 16)
    found = Counter()
    firsts = table.firsts.tolist()
    assert len(firsts) == plan.volume + 1 and firsts[-1] == table.bounds.shape[1]
    for cell, (first, last) in enumerate(zip(firsts, firsts[1:])):
        for begin, end in table.bounds[:, first:last].t().tolist():
            assert 0 < end - begin <= 16
            pairs = zip(table.sources[begin:end].tolist(), table.targets[begin:end].tolist())
            found.update((cell, i, o) for i, o in pairs)
    assert found == triples(plan)


@pytest.mark.parametrize("size, stride, transposed", [(3, 1, False), (3, 2, True)])
def test_sorted_by_mask_tiles_have_fewer_cells(monkeypatch, size, stride, transposed):
    voxels = 1500
    in_masks = len(tiles.tiles(kernel_map(size, stride, transposed, voxels), 16).cells)
    monkeypatch.setattr(tiles, "_mask_order", lambda plan: torch.arange(plan.n_out))
    in_space = len(tiles.tiles(kernel_map(size, stride, transposed, voxels), 16).cells)
    assert in_masks < 0.97 * in_space


@pytest.mark.parametrize("bits", [3, 4])
def test_ranks_follow_the_gray_code_over_all_words(monkeypatch, bits):
    """Neighbours in the order differ in one cell, also where a word ends."""
    monkeypatch.setattr(tiles, "WORD", bits)
    masks = torch.arange(2 ** (2 * bits))
    ranks = tiles._gray_ranks(torch.stack([masks % 2**bits, masks // 2**bits]))
    place = ranks[0] * 2**bits + ranks[1]
    assert sorted(place.tolist()) == masks.tolist()
    ordered = masks[place.argsort()].tolist()
    assert all((a ^ b).bit_count() == 1 for a, b in zip(ordered, ordered[1:]))


def test_masks_are_sorted_within_stretches_of_space(monkeypatch):
    monkeypatch.setattr(tiles, "STRETCH", 32)
    order = tiles._mask_order(kernel_map(3, 1, False))
    assert (order // 32).diff().min() >= 0 and sorted(order.tolist()) == list(range(len(order)))
    assert order.tolist() != sorted(order.tolist())


def test_a_cpu_has_plain_torch_unless_asked_otherwise(monkeypatch):
    monkeypatch.delenv(arithmetic.VARIABLE, raising=False)
    x = torch.ones(1, 1)
    assert arithmetic._arithmetic(x) is plain
    monkeypatch.setenv(arithmetic.VARIABLE, "triton")
    monkeypatch.setattr(arithmetic, "_triton", lambda: "triton")
    monkeypatch.setattr(arithmetic, "_has_triton", lambda: True)
    assert arithmetic._arithmetic(x) == "triton"
    monkeypatch.setattr(arithmetic, "_has_triton", lambda: False)
    assert arithmetic._arithmetic(x) is plain


def test_cuda_has_triton_where_it_is_installed(monkeypatch):
    class OnCuda:
        is_cuda = True

    monkeypatch.delenv(arithmetic.VARIABLE, raising=False)
    monkeypatch.setattr(arithmetic, "_triton", lambda: "triton")
    monkeypatch.setattr(arithmetic, "_runs_on_cuda", lambda: True)
    assert arithmetic._arithmetic(OnCuda()) == "triton"
    monkeypatch.setenv(arithmetic.VARIABLE, "torch")
    assert arithmetic._arithmetic(OnCuda()) is plain
    monkeypatch.delenv(arithmetic.VARIABLE)
    monkeypatch.setattr(arithmetic, "_runs_on_cuda", lambda: False)
    assert arithmetic._arithmetic(OnCuda()) is plain


def test_a_triton_that_cannot_run_is_said_once_and_left_alone(monkeypatch):
    class Driver:
        @property
        def active(self):
            raise RuntimeError("Failed to find C compiler.\nPlease specify one")

    module = types.SimpleNamespace(__version__="3.9.0", runtime=types.SimpleNamespace(driver=Driver()))
    monkeypatch.setattr(arithmetic.importlib, "import_module", lambda name: module)
    arithmetic._runs_on_cuda.cache_clear()
    try:
        with pytest.warns(UserWarning, match=r"Triton cannot run here \(Failed to find C compiler.\)"):
            assert not arithmetic._runs_on_cuda()
        assert not arithmetic._runs_on_cuda()
    finally:
        arithmetic._runs_on_cuda.cache_clear()


def test_tf32_follows_either_of_torchs_settings(monkeypatch):
    assert not arithmetic.allows_tf32()
    for setting, expected in (("tf32", True), ("ieee", False)):
        monkeypatch.setattr(arithmetic.torch.backends.cuda, "matmul", types.SimpleNamespace(fp32_precision=setting))
        assert arithmetic.allows_tf32() is expected


def test_importing_and_using_the_engine_imports_no_compiler():
    """Either takes seconds, and is absent on many systems."""
    program = (
        "import sys, torch, sparsefeat\n"
        "x = sparsefeat.SparseTensor(torch.ones(1, 1), torch.zeros(1, 4))\n"
        "sparsefeat.models.SimpleNetBN(1, 2).eval()(x)\n"
        "print([name for name in ('triton', 'torch._dynamo', 'torch._inductor') if name in sys.modules])"
    )
    environment = {k: v for k, v in os.environ.items() if k != arithmetic.VARIABLE}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"


@pytest.fixture
def tuning(monkeypatch, tmp_path):
    """Tuning as on a GPU where configuration (7,) is the fastest; what it measured, in order."""
    measured = []
    monkeypatch.setenv(triton_tuning.CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(triton_tuning, "_chosen", {})
    monkeypatch.setattr(triton_tuning, "may_measure", lambda device: True)

    def measure(call):
        measured.append(call())
        return abs(measured[-1] - 7)

    monkeypatch.setattr(triton_tuning, "measure", measure)
    return measured


@pytest.mark.parametrize("step, length", [(1, 7), (1, 3), (3, 5), (1, 1), (8, 2)])
def test_a_gpu_finds_the_neighbours_that_a_cpu_finds(step, length):
    random = torch.Generator().manual_seed(step)
    keys = torch.unique(torch.randint(0, 400, (120,), generator=random))
    start = torch.randint(-30, 430, (300,), generator=random)
    found = neighbours._find_run(keys, start, step, length)
    assert torch.equal(neighbours._find_each(keys, start, step, length), found) and (found >= 0).any()


class One(tuple):
    """A configuration of one number."""


def tune(name: str = "a", numbers=(5, 7, 9)) -> int:
    cpu = torch.device("cpu")
    return triton_tuning.tuned((name, 1), lambda: [One([n]) for n in numbers], lambda c: c[0], cpu)[0]


def test_the_fastest_is_measured_once_and_remembered(tuning, monkeypatch):
    assert tune() == 7 and tuning == [5, 7, 9]
    assert tune() == 7 and len(tuning) == 3
    monkeypatch.setattr(triton_tuning, "_chosen", {})  # another process
    assert tune() == 7 and len(tuning) == 3
    assert tune("b") == 7 and len(tuning) == 6
    content = json.loads(triton_tuning.cache_file().read_text())
    assert content == {"format": triton_tuning.FORMAT, "configs": {"a / 1": [7], "b / 1": [7]}}


def test_a_remembered_configuration_that_is_no_candidate_any_more_is_measured_again(tuning, monkeypatch):
    tune()
    monkeypatch.setattr(triton_tuning, "_chosen", {})
    assert tune(numbers=(5, 9)) == 5 and len(tuning) == 5


@pytest.mark.parametrize(
    "content",
    [
        "", "{", "[1, 2]", '{"format": 0, "configs": {"a / 1": [5]}}', '{"format": 1, "configs": [5]}',
        '{"format": 1, "configs": {"a / 1": "5"}}', '{"format": 1, "configs": {"a / 1": [1e9]}}',
        '{"format": 1, "configs": {"a / 1": [true]}}', "[" * 10**5, "\0\0",
    ],
)
def test_a_damaged_or_foreign_file_is_replaced(tuning, content):
    path = triton_tuning.cache_file()
    path.parent.mkdir()
    path.write_text(content)
    assert tune() == 7
    assert json.loads(path.read_text())["configs"] == {"a / 1": [7]}


@pytest.mark.parametrize("trouble", ["infinite", "memory"])
def test_what_could_not_be_measured_is_not_remembered(tuning, monkeypatch, trouble):
    def measure(call):
        tuning.append(call())
        if trouble == "memory":
            raise torch.cuda.OutOfMemoryError("no room")
        return float("inf")

    good = triton_tuning.measure
    monkeypatch.setattr(triton_tuning, "measure", measure)
    assert tune() == 5, "the default"
    assert not triton_tuning.cache_file().exists()
    monkeypatch.setattr(triton_tuning, "measure", good)
    assert tune() == 7


def test_a_graph_is_captured_with_what_its_warm_up_used(tuning, monkeypatch):
    assert tune() == 7
    monkeypatch.setattr(triton_tuning, "may_measure", lambda device: False)
    assert tune() == 5, "reproducible: the default"
    monkeypatch.setattr(triton_tuning, "capturing", lambda device: True)
    assert tune() == 7
    assert tune("never seen") == 5


def test_what_another_process_added_stays(tuning):
    tune()
    triton_tuning.write(triton_tuning.cache_file(), {"theirs": [3]})
    tune("b")
    assert triton_tuning.read(triton_tuning.cache_file()) == {"a / 1": [7], "b / 1": [7], "theirs": [3]}


def test_a_folder_that_cannot_be_written_costs_only_the_memory(tuning, monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(triton_tuning.CACHE_VARIABLE, str(tmp_path / "file"))
    assert tune() == 7 and tune() == 7 and len(tuning) == 3


def test_the_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv(triton_tuning.CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert triton_tuning.cache_file().parent == tmp_path / "sparsefeat"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert triton_tuning.cache_file().parent == tmp_path / ".cache" / "sparsefeat"
    monkeypatch.setenv(triton_tuning.CACHE_VARIABLE, str(tmp_path / "own"))
    assert triton_tuning.cache_file().parent == tmp_path / "own"


def test_nothing_is_measured_on_a_cpu_or_where_results_must_be_reproducible(monkeypatch):
    assert not triton_tuning.may_measure(torch.device("cpu"))
    cuda = torch.device("cuda")
    monkeypatch.delenv(triton_tuning.TUNE_VARIABLE, raising=False)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    assert triton_tuning.may_measure(cuda)
    monkeypatch.setattr(torch, "are_deterministic_algorithms_enabled", lambda: True)
    assert not triton_tuning.may_measure(cuda)
    monkeypatch.undo()
    monkeypatch.setenv(triton_tuning.TUNE_VARIABLE, "0")
    assert not triton_tuning.may_measure(cuda)


def test_a_configuration_that_cannot_run_loses():
    def fail():
        raise RuntimeError("out of resources")

    assert triton_tuning.measure(fail) == float("inf")


@pytest.mark.parametrize("capability, instruction", [(80, "mma.sync"), (90, "wgmma.mma_async")])
def test_kernels_compile_for_gpus_with_tensor_cores_and_asynchronous_gathers(
    monkeypatch, tmp_path, capability, instruction
):
    """No GPU is needed to compile for one."""
    triton = pytest.importorskip("triton", reason="needs triton")
    compiler = pytest.importorskip("triton.compiler", reason="needs triton")
    backends = pytest.importorskip("triton.backends", reason="needs triton 3")
    if "nvidia" not in backends.backends or tuple(map(int, triton.__version__.split(".")[:2])) < (3, 3):
        pytest.skip("needs triton 3.3 with its compiler for CUDA")
    from triton.backends.compiler import GPUTarget

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    kernel = importlib.import_module("sparsefeat.sparse.backends.triton_kernels").convolve_tiles
    constants = dict(
        HEIGHT=64, BLOCK_N=32, BLOCK_K=32, CHUNKS=2, CELLS=1, PARTS=1, HAS_BIAS=False, PRECISION="ieee",
        WIDEN=False, out_stride=1,
    )
    kinds = dict.fromkeys(("x", "weight", "bias", "out"), "*fp16")
    kinds |= dict.fromkeys(("rows", "starts", "cells", "sources"), "*i32")
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else kinds.get(name, "i32") for name in names}
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names) if name not in constants and name != "column_blocks"
    }
    source = compiler.ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": 4, "num_stages": 3, "enable_fp_fusion": True}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert instruction in made.asm["ptx"] and "cp.async" in made.asm["ptx"]
