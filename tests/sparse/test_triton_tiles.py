"""What Triton's kernels go by: tiles of outputs, units of pairs, which arithmetic runs, what compiles."""

from __future__ import annotations

import importlib
import itertools
import os
import subprocess
import sys
import types
from collections import Counter

import pytest
import torch
from engine_oracle import cloud

from sparsefeat.sparse import CoordinateManager, Kernel, arithmetic, kernel_search, precision
from sparsefeat.sparse.arithmetic import plain, tiles

WINDOWS = pytest.mark.parametrize(
    "size, stride, transposed",
    [
        (3, 1, False),
        (3, 1, True),
        (2, 2, False),
        (3, 2, True),
        (4, 2, False),
        (5, 1, True),
        (7, 1, False),
    ],
)


def kernel_map(size: int, stride: int, transposed: bool, voxels: int = 120):
    manager = CoordinateManager(3)
    fine = manager.insert(cloud(voxels, side=9))
    plan = manager.kernel_map(
        fine, fine if stride == 1 else manager.stride(fine, stride), Kernel.of(size)
    )
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
    for cell, (first, last) in enumerate(itertools.pairwise(firsts)):
        for begin, end in table.bounds[:, first:last].t().tolist():
            assert 0 < end - begin <= 16
            pairs = zip(table.sources[begin:end].tolist(), table.targets[begin:end].tolist())
            found.update((cell, i, o) for i, o in pairs)
    assert found == triples(plan)


@pytest.mark.parametrize("transposed", [False, True])
def test_tables_that_were_made_to_try_them_are_dropped(transposed):
    plan = kernel_map(3, 1, transposed)
    names = [("tiles", 16), ("tiles", 32), ("units", 16)]
    kept = tiles.tiles(plan, 16)
    with tiles.dropped_after(plan, heights=(16, 32), lengths=(16,)):
        tiles.tiles(plan, 16), tiles.tiles(plan, 32), tiles.units(plan, 16)
        assert all(map(plan.has, names))
    assert tiles.tiles(plan, 16) is kept and [plan.has(name) for name in names] == [
        True,
        False,
        False,
    ]
    assert not plan.transpose.has(("tiles", 32))


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
    assert all((a ^ b).bit_count() == 1 for a, b in itertools.pairwise(ordered))


def test_masks_are_sorted_within_stretches_of_space(monkeypatch):
    monkeypatch.setattr(tiles, "STRETCH", 32)
    order = tiles._mask_order(kernel_map(3, 1, False))
    assert (order // 32).diff().min() >= 0 and sorted(order.tolist()) == list(range(len(order)))
    assert order.tolist() != sorted(order.tolist())


def test_a_cpu_has_plain_torch_unless_asked_otherwise(monkeypatch):
    monkeypatch.delenv(arithmetic.VARIABLE, raising=False)
    x = torch.ones(1, 1)
    assert arithmetic.arithmetic_for(x) is plain
    monkeypatch.setenv(arithmetic.VARIABLE, "triton")
    monkeypatch.setattr(arithmetic, "_triton", lambda: "triton")
    monkeypatch.setattr(arithmetic, "_has_triton", lambda: True)
    assert arithmetic.arithmetic_for(x) == "triton"
    monkeypatch.setattr(arithmetic, "_has_triton", lambda: False)
    assert arithmetic.arithmetic_for(x) is plain


def test_cuda_has_triton_where_it_is_installed(monkeypatch):
    class OnCuda:
        is_cuda = True

    monkeypatch.delenv(arithmetic.VARIABLE, raising=False)
    monkeypatch.setattr(arithmetic, "_triton", lambda: "triton")
    monkeypatch.setattr(arithmetic, "_runs_on_cuda", lambda: True)
    assert arithmetic.arithmetic_for(OnCuda()) == "triton"
    monkeypatch.setenv(arithmetic.VARIABLE, "torch")
    assert arithmetic.arithmetic_for(OnCuda()) is plain
    monkeypatch.delenv(arithmetic.VARIABLE)
    monkeypatch.setattr(arithmetic, "_runs_on_cuda", lambda: False)
    assert arithmetic.arithmetic_for(OnCuda()) is plain


def test_a_triton_that_cannot_run_is_said_once_and_left_alone(monkeypatch):
    class Driver:
        @property
        def active(self):
            raise RuntimeError("Failed to find C compiler.\nPlease specify one")

    module = types.SimpleNamespace(
        __version__="3.9.0", runtime=types.SimpleNamespace(driver=Driver())
    )
    monkeypatch.setattr(arithmetic.importlib, "import_module", lambda name: module)
    arithmetic._runs_on_cuda.cache_clear()
    try:
        with pytest.warns(
            UserWarning, match=r"Triton cannot run here \(Failed to find C compiler.\)"
        ):
            assert not arithmetic._runs_on_cuda()
        assert not arithmetic._runs_on_cuda()
    finally:
        arithmetic._runs_on_cuda.cache_clear()


def test_tf32_follows_either_of_torchs_settings(monkeypatch):
    assert not precision.allows_tf32()
    for setting, expected in (("tf32", True), ("ieee", False)):
        monkeypatch.setattr(
            torch.backends.cuda, "matmul", types.SimpleNamespace(fp32_precision=setting)
        )
        assert precision.allows_tf32() is expected


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


@pytest.mark.parametrize("step, length", [(1, 7), (1, 3), (3, 5), (1, 1), (8, 2)])
def test_a_gpu_finds_the_neighbours_that_a_cpu_finds(step, length):
    random = torch.Generator().manual_seed(step)
    keys = torch.unique(torch.randint(0, 400, (120,), generator=random))
    start = torch.randint(-30, 430, (300,), generator=random)
    found = kernel_search._find_run(keys, start, step, length)
    assert (
        torch.equal(kernel_search._find_each(keys, start, step, length), found)
        and (found >= 0).any()
    )


@pytest.mark.parametrize("capability, instruction", [(80, "mma.sync"), (90, "wgmma.mma_async")])
def test_kernels_compile_for_gpus_with_tensor_cores_and_asynchronous_gathers(
    monkeypatch, tmp_path, capability, instruction
):
    """No GPU is needed to compile for one."""
    triton = pytest.importorskip("triton", reason="needs triton")
    compiler = pytest.importorskip("triton.compiler", reason="needs triton")
    backends = pytest.importorskip("triton.backends", reason="needs triton 3")
    if "nvidia" not in backends.backends or tuple(map(int, triton.__version__.split(".")[:2])) < (
        3,
        3,
    ):
        pytest.skip("needs triton 3.3 with its compiler for CUDA")
    from triton.backends.compiler import GPUTarget

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("TRITON_DEFAULT_FP_FUSION", "1")
    kernel = importlib.import_module("sparsefeat.sparse.arithmetic.triton_kernels").convolve_tiles
    constants = dict(
        HEIGHT=64,
        BLOCK_N=32,
        BLOCK_K=32,
        CHUNKS=2,
        CELLS=1,
        PARTS=1,
        HAS_BIAS=False,
        PRECISION="ieee",
        WIDEN=False,
        out_stride=1,
    )
    kinds = dict.fromkeys(("x", "weight", "bias", "out"), "*fp16")
    kinds |= dict.fromkeys(("rows", "starts", "cells", "sources"), "*i32")
    names = kernel.arg_names
    signature = {
        name: "constexpr" if name in constants else kinds.get(name, "i32") for name in names
    }
    aligned = {
        (place,): [["tt.divisibility", 16]]
        for place, name in enumerate(names)
        if name not in constants and not kernel.params[place].do_not_specialize
    }
    source = compiler.ASTSource(kernel, signature, constexprs=constants, attrs=aligned)
    options = {"num_warps": 4, "num_stages": 3, "enable_fp_fusion": True}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)
    assert instruction in made.asm["ptx"] and "cp.async" in made.asm["ptx"]
    assert "st.global.v4" in made.asm["ptx"], "outputs are stored in whole vectors"


def test_no_kernel_is_compiled_anew_for_another_number_of_voxels(monkeypatch):
    pytest.importorskip("triton", minversion="3", reason="needs triton 3")
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    module = importlib.import_module("sparsefeat.sparse.arithmetic.triton_kernels")
    for kernel, counts in (
        (module.convolve_tiles, {"n_out", "column_blocks"}),
        (module.multiply_units, {"units"}),
    ):
        assert {p.name for p in kernel.params if p.do_not_specialize} == counts
