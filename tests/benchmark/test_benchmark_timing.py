"""The benchmark's clock: turns, rounds, quartiles, memory and products as graphs."""

from __future__ import annotations

import types

import pytest
import torch

from sparsefeat.benchmark import floors, timing
from sparsefeat.benchmark.timing import Timing, time_interleaved


def test_contenders_take_turns_and_the_first_round_does_not_count():
    calls = []
    timings = time_interleaved(
        {"a": lambda: calls.append("a"), "b": lambda: calls.append("b")},
        torch.device("cpu"),
        runs=3,
    )
    assert calls == ["a", "b"] * 4 and {name: len(t.wall) for name, t in timings.items()} == {
        "a": 3,
        "b": 3,
    }


def test_long_cases_get_three_rounds():
    timings = time_interleaved({"a": lambda: None}, torch.device("cpu"), runs=50, seconds=1e-9)
    assert len(timings["a"].wall) == 3


def test_a_slow_first_round_takes_no_time_from_the_others(monkeypatch):
    """It compiles and tunes."""
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])
    durations = iter([1000.0] + [1.0] * 7)

    def call():
        clock[0] += next(durations)

    timings = time_interleaved({"a": call}, torch.device("cpu"), runs=7, seconds=10)
    assert timings["a"].wall == (1.0,) * 7


def test_the_memory_of_an_operation_is_what_it_adds(monkeypatch):
    held = {"now": 500, "most": 9_000}
    cuda = types.SimpleNamespace(
        synchronize=lambda device: None,
        memory_allocated=lambda device: held["now"],
        max_memory_allocated=lambda device: held["most"],
        reset_peak_memory_stats=lambda device: held.update(most=held["now"]),
    )
    monkeypatch.setattr(timing.torch, "cuda", cuda)
    assert (
        timing.device_peak(lambda: held.update(most=held["now"] + 70), torch.device("cuda")) == 70
    )


def test_products_that_no_graph_can_hold_are_called_one_by_one(monkeypatch):
    calls = []
    assert floors.captured(calls.clear, torch.device("cpu")) == calls.clear

    def refuse(call, device):
        raise RuntimeError("operation not permitted when stream is capturing")

    monkeypatch.setattr(floors, "_capture", refuse)
    with pytest.warns(UserWarning, match="no CUDA graph"):
        floors.captured(lambda: calls.append(1), torch.device("cuda"))()
    assert calls == [1]


def test_medians_and_quartiles():
    row = Timing((4.0, 1.0, 2.0, 3.0, 5.0), (1.0, 1.0, 1.0, 1.0, 2.0)).as_dict()
    assert (row["median_s"], row["quartile1_s"], row["quartile3_s"], row["least_s"]) == (3, 2, 4, 1)
    assert row["cpu_median_s"] == 1 and row["runs"] == 5
