"""Which tile sizes are chosen for Triton's kernels: measured once, remembered, reproducible where asked for."""

from __future__ import annotations

import json

import pytest
import torch

from sparsefeat.sparse.arithmetic import triton_tuning


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


class One(tuple):
    """A configuration of one number."""


def tune(name: str = "a", numbers=(5, 7, 9)) -> int:
    cpu = torch.device("cpu")
    return triton_tuning.tuned((name, 1), lambda: [One([n]) for n in numbers], lambda c: c[0], cpu)[
        0
    ]


def test_the_fastest_is_measured_once_and_remembered(tuning, monkeypatch):
    assert tune() == 7 and tuning == [5, 7, 9]
    assert tune() == 7 and len(tuning) == 3
    monkeypatch.setattr(triton_tuning, "_chosen", {})  # another process
    assert tune() == 7 and len(tuning) == 3
    assert tune("b") == 7 and len(tuning) == 6
    content = json.loads(triton_tuning.cache_file().read_text())
    assert content == {"format": triton_tuning.FORMAT, "configs": {"a / 1": [7], "b / 1": [7]}}


def test_a_remembered_configuration_that_is_no_candidate_any_more_is_measured_again(
    tuning, monkeypatch
):
    tune()
    monkeypatch.setattr(triton_tuning, "_chosen", {})
    assert tune(numbers=(5, 9)) == 5 and len(tuning) == 5


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "[1, 2]",
        '{"format": 0, "configs": {"a / 1": [5]}}',
        '{"format": 1, "configs": [5]}',
        '{"format": 1, "configs": {"a / 1": "5"}}',
        '{"format": 1, "configs": {"a / 1": [1e9]}}',
        '{"format": 1, "configs": {"a / 1": [true]}}',
        "[" * 10**5,
        "\0\0",
    ],
)
def test_a_damaged_or_foreign_file_is_replaced(tuning, content):
    path = triton_tuning.cache_file()
    path.parent.mkdir()
    path.write_text(content)
    assert tune() == 7
    assert json.loads(path.read_text())["configs"] == {"a / 1": [7]}


@pytest.mark.parametrize("trouble", ["infinite", "memory"])
def test_where_not_all_could_be_measured_this_process_keeps_to_the_default(
    tuning, monkeypatch, trouble
):
    def measure(call):
        tuning.append(call())
        if trouble == "memory":
            raise torch.cuda.OutOfMemoryError("no room")
        return float("inf")

    good = triton_tuning.measure
    monkeypatch.setattr(triton_tuning, "measure", measure)
    assert tune() == 5, "the default"
    assert not triton_tuning.cache_file().exists()
    measured = len(tuning)
    assert tune() == 5 and len(tuning) == measured, "not measured again at every call"
    monkeypatch.setattr(triton_tuning, "measure", good)
    monkeypatch.setattr(triton_tuning, "_chosen", {})  # another process
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
    assert triton_tuning.read(triton_tuning.cache_file()) == {
        "a / 1": [7],
        "b / 1": [7],
        "theirs": [3],
    }


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
