"""Progress: a bar on a terminal, elsewhere a line every half minute."""

from __future__ import annotations

import fcntl
import os
import pty
import struct
import termios

import pytest

from sparsefeat.process import progress as module
from sparsefeat.process.progress import Progress


@pytest.fixture
def clock(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_line_every_half_minute_where_there_is_no_terminal(clock, capsys):
    with Progress("rooms", 40, "fragment") as progress:
        for done in range(1, 41):
            clock[0] += 10
            progress(done, note=f"room-{done}")
    lines = capsys.readouterr().err.splitlines()
    assert lines.pop(0).startswith("rooms: about 6 min for the remaining 37 fragments")
    assert len(lines) == 13
    assert lines[0] == "rooms: 3 of 40 fragments, 0:30 gone, about 6:10 left, room-3"
    assert lines[-1] == "rooms: 39 of 40 fragments, 6:30 gone, about 0:10 left, room-39"


def test_the_first_part_of_a_work_is_named_when_it_begins(clock, capsys):
    with Progress("study", 2, "part", announce=True) as progress:
        progress(0, note="clean: descriptors")
        clock[0] += 10
        progress(1, note="clean: heads")
    assert capsys.readouterr().err == "study: 0 of 2 parts, 0:00 gone, clean: descriptors\n"


def test_what_was_done_before_does_not_make_it_look_faster(clock, capsys):
    progress = Progress("pretrain", 100, "step", done=50)
    clock[0] += 3600
    progress(60)
    assert (
        capsys.readouterr().err == "pretrain: 60 of 100 steps, 1:00:00 gone, about 4:00:00 left\n"
    )


def test_short_works_and_silent_ones_say_nothing(clock, capsys):
    with Progress("short", 2) as progress:
        clock[0] += 29
        progress(2)
    with Progress("silent", 2, show=False) as progress:
        clock[0] += 1000
        progress(2)
    assert capsys.readouterr() == ("", "")


def test_a_bar_on_a_terminal(monkeypatch):
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    with os.fdopen(theirs, "w") as terminal:
        monkeypatch.setattr(module.sys, "stderr", terminal)
        with Progress("rooms", unit="fragment") as progress:
            progress(1, 4, "room-0001")
            progress(4, 4)
        drawn = ""
        while "4/4" not in drawn:
            drawn += os.read(ours, 1 << 16).decode()
    os.close(ours)
    assert "rooms:   0%" in drawn and "1/4" in drawn and "room-0001" in drawn
