"""Estimates: measured on the first items, said once, and only where the rest takes over a minute."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys

import pytest

from sparsefeat.process import estimate as module
from sparsefeat.process.estimate import Estimate, estimate_line, memory_used, peak_bytes
from sparsefeat.process.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def feed(clock, estimate, seconds, total, first=0):
    """What is said after each of these items, which take so many seconds."""
    said = []
    for done, gone in enumerate(seconds, first + 1):
        clock[0] += gone
        said.append(estimate(done, total))
    return said


def test_the_rest_follows_from_the_rate_of_the_items_after_the_first(clock):
    said = feed(clock, Estimate(), [6, 4, 4, 4], 102)
    # After the third item: 8 s for two, and 99 are left.
    assert said == [None, None, 99 * 4, None]


def test_several_workers_that_begin_together_are_measured_over_a_second_round(clock):
    # Three at a time, 30 s each: in the end 100 items take 100 / 3 * 30 s.
    said = feed(clock, Estimate(), [30, 1, 1, 28, 1, 1], 100)
    assert said[:3] == [None] * 3
    seconds = next(value for value in said if value is not None)
    assert seconds == pytest.approx(96 * 30 / 3)


def test_a_work_that_says_when_it_begins_is_measured_from_there(clock):
    estimate = Estimate()
    assert estimate(0, 10) is None
    assert feed(clock, estimate, [50, 50], 10) == [None, 400]


def test_one_item_of_over_a_minute_is_enough(clock):
    estimate = Estimate()
    estimate(0, 5)
    assert feed(clock, estimate, [100], 5) == [400]


def test_nothing_is_said_where_the_rest_takes_less_than_a_minute(clock):
    assert feed(clock, Estimate(), [1] * 60, 60) == [None] * 60
    # It becomes slow later: then it is known that more than a minute is left.
    said = feed(clock, Estimate(), [1] * 10 + [40] * 10, 20)
    assert said[10] is None and any(said)


def test_what_an_earlier_run_did_is_no_measure(clock):
    # 90 known pairs are reported at once, the others take 20 s each.
    estimate = Estimate(90)
    assert feed(clock, estimate, [0] * 90, 100) == [None] * 90
    assert feed(clock, estimate, [20, 20], 100, 90) == [None, 8 * 20]


def test_what_is_prepared_before_the_first_step_is_no_measure(clock):
    estimate = Estimate()
    estimate(0, 100)
    clock[0] += 3600  # descriptors
    assert estimate(0, 100) is None
    assert feed(clock, estimate, [3, 3], 100) == [None, 98 * 3]


def test_notes_between_two_items_do_not_begin_anew(clock):
    estimate = Estimate()
    feed(clock, estimate, [30], 102)
    clock[0] += 25
    assert estimate(1, 102) is None  # a note: the second item is nearly done
    clock[0] += 5
    assert estimate(2, 102) is None
    assert feed(clock, estimate, [30], 102, 2) == [99 * 30]


def test_a_count_that_goes_back_is_measured_from_there(clock):
    estimate = Estimate()
    feed(clock, estimate, [1] * 5, 6)
    assert estimate(0, 200) is None
    assert feed(clock, estimate, [20, 20], 200) == [None, 198 * 20]


def test_an_unknown_total_gives_no_estimate(clock):
    assert feed(clock, Estimate(), [30] * 4, None) == [None] * 4


def test_parts_of_an_item_count(clock):
    estimate = Estimate()
    estimate(0.0, 3)
    clock[0] += 10
    assert estimate(0.1, 3) is None
    clock[0] += 10
    assert estimate(0.2, 3) == pytest.approx(280)


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (60, "1 min"),
        (89 * 60, "89 min"),
        (90 * 60, "1.5 h"),
        (3 * 3600 + 100, "3 h"),
        (20.2 * 3600, "20 h"),
        (72 * 3600, "3 days"),
    ],
)
def test_times_are_rounded_to_what_is_known(seconds, shown, monkeypatch):
    monkeypatch.setattr(module, "memory_used", lambda: "")
    assert estimate_line(seconds, 2, "step") == f"about {shown} for the remaining 2 steps"


def test_the_line_has_time_items_and_memory(monkeypatch):
    monkeypatch.setattr(module, "peak_bytes", lambda pid: 1_240_000_000)
    line = estimate_line(3 * 3600, 13490, "step")
    assert line == "about 3 h for the remaining 13490 steps, 1.2 GB of memory so far"
    assert estimate_line(80, 0.4, "file").startswith("about 1 min for the remaining 1 file, ")
    monkeypatch.setattr(module, "peak_bytes", lambda pid: 340_400_000)
    assert memory_used() == "340 MB of memory so far"


def test_memory_of_workers_is_added(monkeypatch):
    monkeypatch.setattr(
        module, "peak_bytes", lambda pid: 1_000_000_000 if pid == os.getpid() else 400_000_000
    )
    process = multiprocessing.get_context("spawn").Process(target=sys.stdin.read)
    monkeypatch.setattr(module.multiprocessing, "active_children", lambda: [process, process])
    assert memory_used() == "up to 1.8 GB of memory so far with 2 workers"


def test_where_memory_is_not_known_only_the_time_is_said(monkeypatch):
    monkeypatch.setattr(module, "peak_bytes", lambda pid: None)
    assert estimate_line(600, 7, "pair") == "about 10 min for the remaining 7 pairs"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="no /proc")
def test_the_peak_is_what_was_used_and_not_what_is():
    code = (
        "from sparsefeat.process.estimate import peak_bytes\n"
        "import os\n"
        "before = peak_bytes(os.getpid())\n"
        "block = b'1' * 300_000_000\n"
        "del block\n"
        "print(peak_bytes(os.getpid()) - before)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 290e6 < int(done.stdout) < 400e6
    assert peak_bytes(2**22 + 1) is None, "no process has this number"


def test_progress_says_it_once_on_standard_error(clock, monkeypatch, capsys):
    monkeypatch.setattr(module, "peak_bytes", lambda pid: 1_240_000_000)
    with Progress("pretrain", 13500, "step") as progress:
        for done in range(1, 30):
            clock[0] += 0.8
            progress(done)
    captured = capsys.readouterr()
    expected = "pretrain: about 3 h for the remaining 13492 steps, 1.2 GB of memory so far\n"
    assert captured.err == expected and captured.out == ""
    with Progress("silent", 13500, show=False) as progress:
        for done in range(1, 30):
            clock[0] += 0.8
            progress(done)
    assert capsys.readouterr().err == ""
