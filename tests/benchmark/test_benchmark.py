"""The benchmark: what it selects, compares, times and writes."""

from __future__ import annotations

import json
import os
import sys

import pytest
import torch

from sparsefeat.benchmark import Options, engines, run, run_benchmark, select
from sparsefeat.benchmark.cases import LayerCase, all_cases
from sparsefeat.benchmark.clouds import Cloud, make_cloud
from sparsefeat.benchmark.layers import (
    GATHERS,
    PRODUCTS,
    Measurement,
    Setting,
    difference,
    measure_layer,
)
from sparsefeat.benchmark.networks import measure_network
from sparsefeat.benchmark.report import as_dict, table, write_json, write_plot
from sparsefeat.benchmark.timing import Timing
from sparsefeat.sparse import arithmetic, precision
from sparsefeat.sparse.arithmetic import plain

CPU = Setting(torch.device("cpu"), runs=1)


@pytest.fixture(scope="module")
def small() -> Cloud:
    full = make_cloud("5k", None)
    return Cloud("5k", full.coordinates[:300].contiguous(), full.source, full.voxel_size)


@pytest.fixture(scope="module")
def tool():
    from sparsefeat.cli import benchmark

    return benchmark


def test_a_drawn_room_has_the_voxels_asked_for_and_the_same_ones_each_time():
    one, other = make_cloud("5k", None), make_cloud("5k", None)
    assert torch.equal(one.coordinates, other.coordinates)
    assert 4_000 <= len(one.coordinates) <= 6_000
    assert len(torch.unique(one.coordinates, dim=0)) == len(one.coordinates)


def test_real_fragments_come_first(dataset):
    cloud = make_cloud("5k", dataset("threedmatch_dense").parent)
    assert (
        cloud.source.startswith("threedmatch_dense/") and 4_000 <= len(cloud.coordinates) <= 6_000
    )


def test_every_case_is_selected_by_its_name():
    cases = all_cases()
    assert len({case.name for case in cases}) == len(cases)
    for case in cases:
        assert select([case.name]) == [case]
    assert {case.size for case in select(["conv3-*"])} == {"5k", "20k", "50k", "100k", "1M"}
    with pytest.raises(ValueError, match="'conv9-.*' fits none"):
        select(["conv9-*"])


@pytest.mark.parametrize(
    "case",
    [
        LayerCase("5k", 3, 4, 6),
        LayerCase("5k", 3, 4, 6, 2),
        LayerCase("5k", 3, 6, 4, 2, True),
        LayerCase("5k", 7, 1, 4),
    ],
    ids=lambda case: case.name,
)
def test_a_layer_is_measured_map_forward_and_backward_beside_the_bare_products(small, case):
    rows = measure_layer(case, small, [engines.Ours()], CPU)
    assert [row.operation for row in rows] == ["map", "forward", "backward"]
    floors = (PRODUCTS, GATHERS) if case.c_in > 1 else (PRODUCTS,)
    assert [set(row.timings) for row in rows] == [{"sparsefeat"}, *[{"sparsefeat", *floors}] * 2]
    forward = rows[1]
    assert forward.pairs > 300 and forward.flops == 2 * forward.pairs * case.c_in * case.c_out
    assert rows[2].flops == forward.flops * (2 if case.c_in > 1 else 1), (
        "a first layer's input needs no gradient"
    )
    assert forward.moved_bytes > 0


class Wrong(engines.Ours):
    """Ours, with an output that is off."""

    name = "wrong"

    def prepare(self, case, coordinates, kernel):
        prepared = super().prepare(case, coordinates, kernel)
        forward = prepared.forward
        prepared.forward = lambda features: forward(features) * 1.01
        return prepared


class Shuffled(engines.Ours):
    """Ours, with rows in another order."""

    name = "shuffled"

    def prepare(self, case, coordinates, kernel):
        prepared = super().prepare(case, coordinates, kernel)
        forward, order = prepared.forward, torch.arange(len(prepared.coordinates)).flip(0)
        prepared.forward = lambda features: forward(features)[order]
        prepared.coordinates = prepared.coordinates[order]
        return prepared


class OwnOrder(engines.Ours):
    """Ours, with rows in another order, in which it takes its input too."""

    name = "own order"

    def prepare(self, case, coordinates, kernel):
        order = torch.arange(len(coordinates)).flip(0)
        prepared = super().prepare(case, coordinates[order].contiguous(), kernel)
        prepared.rows = order
        return prepared


class Failing(engines.Ours):
    name = "failing"

    def prepare(self, case, coordinates, kernel):
        raise RuntimeError("no such kernel\nat line 3")


def test_who_computes_something_else_is_named_and_not_timed(small):
    others = [Wrong(), Shuffled(), Failing()]
    rows = measure_layer(LayerCase("5k", 3, 4, 6, 2), small, [engines.Ours(), *others], CPU)
    for row in rows:
        assert set(row.timings) - {PRODUCTS, GATHERS} == {"sparsefeat", "shuffled"}
        assert "differ from ours by 1.0e-02" in row.absent["wrong"]
        assert row.absent["failing"] == "RuntimeError: no such kernel"
        assert row.errors["shuffled"] <= 1e-6


def test_an_engine_may_take_its_rows_in_an_order_of_its_own(small):
    for row in measure_layer(LayerCase("5k", 3, 4, 6), small, [engines.Ours(), OwnOrder()], CPU):
        assert "own order" in row.timings and row.errors["own order"] <= 1e-6


def test_plain_torch_is_a_contender_that_leaves_the_choice_as_it_was(small, monkeypatch):
    monkeypatch.delenv(arithmetic.VARIABLE, raising=False)
    seen = set()
    convolve = plain.convolve
    monkeypatch.setattr(
        plain,
        "convolve",
        lambda *args: seen.add(os.environ.get(arithmetic.VARIABLE)) or convolve(*args),
    )
    rows = measure_layer(LayerCase("5k", 3, 4, 6), small, [engines.Ours(), engines.Plain()], CPU)
    assert rows[1].errors["sparsefeat in plain torch"] == 0 and seen == {None, "torch"}
    assert "sparsefeat in plain torch" not in rows[0].timings, "its map is ours"
    monkeypatch.setattr("sparsefeat.benchmark.networks.memory_in_new_process", lambda *_: 123)
    case, both = select(["resunet-inference@5k"])[0], [engines.Ours(), engines.Plain()]
    measured = measure_network(case, small, both, CPU)
    assert "sparsefeat in plain torch" in measured[0].timings
    assert arithmetic.VARIABLE not in os.environ


def test_what_counts_as_the_same_is_wider_where_tf32_is_allowed(monkeypatch):
    cuda = Setting(torch.device("cuda"))
    assert cuda.tolerance == CPU.tolerance == 1e-4
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert cuda.tolerance == 1e-2 and CPU.tolerance == 1e-4
    assert Setting(torch.device("cuda"), torch.float64).tolerance == 1e-10


@pytest.mark.parametrize("newer", ["tf32", "ieee"])
def test_tf32_is_set_and_set_back_whichever_of_torchs_settings_was_made(newer):
    matmul, before = torch.backends.cuda.matmul, torch.get_float32_matmul_precision()
    if not hasattr(matmul, "fp32_precision"):
        pytest.skip("this torch has one setting")
    try:
        matmul.fp32_precision = newer
        for allow in (True, False):
            with run._tf32(allow):
                assert precision.allows_tf32() is allow
            assert precision.allows_tf32() is (newer == "tf32")
    finally:
        torch.set_float32_matmul_precision(before)
        matmul.fp32_precision = "none"


def test_a_network_is_measured_with_its_memory(small, monkeypatch):
    monkeypatch.setattr("sparsefeat.benchmark.networks.memory_in_new_process", lambda *_: 123)
    for case in select(["resunet-*@5k"]):
        rows = measure_network(case, small, [engines.Ours()], CPU)
        assert {PRODUCTS, "sparsefeat"} == set(rows[0].timings) and rows[0].memory_bytes == 123
        assert rows[0].flops > 10**8


def test_all_numbers_are_written(small, tmp_path):
    rows = [
        as_dict(m, 1e10)
        for m in measure_layer(LayerCase("5k", 3, 4, 6), small, [engines.Ours()], CPU)
    ]
    rows = [row | {"threads": 1, "dtype": "fp32"} for row in rows]
    write_json(tmp_path / "b.json", rows, {"environment": {}})
    read = json.loads((tmp_path / "b.json").read_text())
    assert read["format"] == 2 and [row["operation"] for row in read["results"]] == [
        "map",
        "forward",
        "backward",
    ]
    forward = read["results"][1]
    ours, *floors = (
        forward["timings"][name]["median_s"] for name in ("sparsefeat", PRODUCTS, GATHERS)
    )
    assert forward["ratios"] == {
        name: pytest.approx(t / ours) for name, t in zip((PRODUCTS, GATHERS), floors)
    }
    assert forward["bandwidth_floor_s"] == pytest.approx(forward["moved_bytes"] / 1e10)
    assert len(table(rows).splitlines()) == 3
    write_plot(tmp_path / "b.png", rows)
    assert (tmp_path / "b.png").stat().st_size > 1000


def test_threads_are_set_back(small, monkeypatch):
    monkeypatch.setattr("sparsefeat.benchmark.run.make_cloud", lambda *_: small)
    before = torch.get_num_threads()
    rows, facts = run_benchmark(
        Options(cases=("conv3-32-32@5k",), engines=("sparsefeat",), threads=(2,), runs=1)
    )
    assert torch.get_num_threads() == before and {row["threads"] for row in rows} == {2}
    assert facts["engines"] == {"sparsefeat": sys.modules["sparsefeat"].__version__}


@pytest.fixture
def measured_cases(small, monkeypatch):
    """Layers "measured" so far; those in ``troubles`` raise what is there."""
    names, troubles = [], {}

    def measure(case, cloud, those, setting):
        names.append(case.name)
        if case.name in troubles:
            raise troubles[case.name]
        timings = {"sparsefeat": Timing((1.0,), (1.0,)), PRODUCTS: Timing((0.5,), (0.5,))}
        return [Measurement(case.name, "forward", 10, 20, timings)]

    monkeypatch.setattr("sparsefeat.benchmark.run.make_cloud", lambda *_: small)
    monkeypatch.setattr("sparsefeat.benchmark.run.measure_layer", measure)
    return names, troubles


def test_a_case_that_fails_is_reported_and_the_others_go_on(tool, measured_cases, tmp_path, capsys):
    path = tmp_path / "b.json"
    measured, troubles = measured_cases
    arguments = ["conv3-*@5k", "--engines", "sparsefeat", "--threads", "1", "--json", str(path)]
    arguments += ["--plot", str(tmp_path / "b.png")]
    troubles["conv3-32-32@5k"] = torch.cuda.OutOfMemoryError("tried to allocate 90 GiB")
    assert tool.main(arguments) == 0, "no memory is no fault"
    assert "no memory for conv3-32-32@5k" in capsys.readouterr().out
    troubles["conv3-64-64@5k"] = RuntimeError("an illegal memory access\nat line 3")
    assert tool.main(arguments) == 1
    assert (
        "failed: conv3-64-64@5k 1 thr fp32: RuntimeError: an illegal memory access\n"
        in capsys.readouterr().out
    )
    read = json.loads(path.read_text())
    assert [row["case"] for row in read["results"]] == ["conv3-128-128@5k", "conv3-256-256@5k"]
    assert [row["out_of_memory"] for row in read["failed"]] == [True, False]
    assert "test_benchmark.py" in read["failed"][1]["traceback"] and read["arithmetic"] == "torch"


def test_a_run_that_was_cut_keeps_its_rows_and_goes_on_where_it_stopped(
    tool, measured_cases, tmp_path, capsys
):
    path = tmp_path / "b.json"
    measured, troubles = measured_cases
    arguments = ["conv3-*@5k", "--engines", "sparsefeat", "--json", str(path), "--resume"]
    troubles["conv3-64-64@5k"], troubles["conv3-256-256@5k"] = (
        RuntimeError("broken"),
        KeyboardInterrupt(),
    )
    assert tool.main(arguments) == 130
    kept = [row["case"] for row in json.loads(path.read_text())["results"]]
    assert kept == ["conv3-32-32@5k", "conv3-128-128@5k"]
    measured.clear()
    troubles.clear()
    assert tool.main(arguments) == 0
    assert measured == ["conv3-256-256@5k", "conv3-64-64@5k"], "what failed comes last"
    read = json.loads(path.read_text())
    assert len(read["results"]) == 4 and not read["failed"]
    read["environment"]["torch"] = "1.0"
    for content, message in (
        (json.dumps(read), "expected its environment"),
        ("{}", "in format 2"),
        ("{", "not JSON"),
    ):
        path.write_text(content)
        assert tool.main(arguments) == 2
        assert message in capsys.readouterr().err


def test_kernels_that_disagree_with_plain_torch_are_a_fault(tool, monkeypatch, capsys):
    name = engines.Plain.name
    facts = {"arithmetic": "triton", "not_installed": {}, "failed": []}
    row = {"case": "a", "operation": "forward", "dtype": "fp16"}
    for errors, code in (({name: 0.5}, 1), ({}, 0)):
        rows = [row | {"errors": errors, "absent": {name: "the reason"}}]
        monkeypatch.setattr(
            "sparsefeat.benchmark.run_benchmark", lambda *_, rows=rows: (rows, facts)
        )
        assert tool.main(["--preset", "cuda"]) == code
        assert ("wrong: a forward fp16" in capsys.readouterr().out) == bool(code)


def test_numbers_that_are_none_differ_and_can_be_written():
    one = torch.ones(2)
    assert difference(one, one) == 0 and difference(one, 2 * one) == 0.5
    assert difference(one * torch.nan, one) == difference(one, one * torch.nan) == 1e30
    assert difference(one * torch.inf, one) == 1e30


def test_it_is_said_when_cuda_has_no_kernels_of_its_own(tool, monkeypatch, capsys):
    for arithmetic_used, said in (("torch", True), ("triton", False)):
        facts = {"arithmetic": arithmetic_used, "not_installed": {}, "failed": []}
        monkeypatch.setattr(
            "sparsefeat.benchmark.run_benchmark", lambda *_, facts=facts: ([], facts)
        )
        assert tool.main(["--preset", "cuda"]) == 0
        assert ("ran in plain torch" in capsys.readouterr().out) is said


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["nonsense"], "'nonsense' fits none"),
        (["--dtypes", "fp8"], "expected one of fp64"),
        (["--dtypes", "tf32"], "needs a CUDA device"),
        (["--threads", "two"], "expected whole numbers"),
        (["--threads", "0"], "at least 1"),
        (["--engines", "Mink"], "expected some of"),
        (["--device", "nowhere"], "cannot be used"),
        (["--runs", "0"], "at least 1"),
        (["--resume"], "expected --json FILE too"),
        (["--json", "no/such/folder/b.json"], "folder that exists"),
        (["--data", "no/such/folder"], "--data no/such/folder: no such folder"),
        (["--plot", "b.xyz"], "ends in .png or .pdf"),
    ],
)
def test_wrong_arguments_are_one_line(tool, capsys, arguments, message):
    assert tool.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="would run for an hour")
def test_the_preset_for_gpus_asks_for_one(tool, capsys):
    assert tool.main(["--preset", "cuda"]) == 2
    assert "device 'cuda' cannot be used" in capsys.readouterr().err


def test_the_tool_lists_its_cases(tool, capsys):
    assert tool.main(["--list", "conv3-*@5k"]) == 0
    assert capsys.readouterr().out.split() == [f"conv3-{c}-{c}@5k" for c in (32, 64, 128, 256)]
