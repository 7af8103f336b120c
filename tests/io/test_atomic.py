"""Nothing half-written, nothing left of killed processes, one writer per output."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal

import pytest

from sparsefeat.errors import InputError
from sparsefeat.io.atomic import atomic_folder, atomic_write, made_folder, sweep
from sparsefeat.io.lock import LOCK_NAME, output_folder

FORK = multiprocessing.get_context("fork")


def _in_a_child(work, *arguments):
    """Run ``work(pipe, ...)`` in a forked process; return it once it sent something."""
    ours, theirs = FORK.Pipe()
    process = FORK.Process(target=work, args=(theirs, *arguments))
    process.start()
    assert ours.recv() == "ready"
    return process


def _write_forever(pipe, path):
    with atomic_write(path) as temporary:
        temporary.write_text("half")
        pipe.send("ready")
        signal.pause()


def _fill_forever(pipe, path):
    with atomic_folder(path) as temporary:
        (temporary / "inner").mkdir()
        (temporary / "inner" / "a.txt").write_text("half")
        pipe.send("ready")
        signal.pause()


def _hold(pipe, folder):
    with output_folder(folder):
        pipe.send("ready")
        signal.pause()


def _kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    with atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("whole")
        assert not (tmp_path / "a.txt").exists()
    with pytest.raises(RuntimeError), atomic_write(tmp_path / "a.txt") as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("work", [_write_forever, _fill_forever])
def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path, work):
    process = _in_a_child(work, tmp_path / "a.b.txt")
    before = os.listdir(tmp_path)
    assert sweep(tmp_path) == [] and os.listdir(tmp_path) == before and len(before) == 1
    _kill(process)
    assert sweep(tmp_path, deep=False, name="other.txt") == []
    assert [path.name for path in sweep(tmp_path, deep=False, name="a.b.txt")] == before
    assert os.listdir(tmp_path) == []


def test_files_of_others_are_not_swept(tmp_path):
    names = [".a.txt", ".hidden", "a.sparsefeat-12345678.txt", ".a.sparsefeat-1.txt"]
    for name in names:
        (tmp_path / name).write_text("mine")
    assert sweep(tmp_path) == []
    assert sorted(os.listdir(tmp_path)) == sorted(names)


def test_the_next_run_sweeps_its_output_at_any_depth(tmp_path):
    (tmp_path / "deep").mkdir()
    process = _in_a_child(_write_forever, tmp_path / "deep" / "a.npz")
    _kill(process)
    with output_folder(tmp_path):
        assert os.listdir(tmp_path / "deep") == []
    assert os.listdir(tmp_path) == ["deep"]


def test_a_second_writer_is_told_who_the_first_is(tmp_path):
    process = _in_a_child(_hold, tmp_path)
    with (
        pytest.raises(InputError, match=rf"process {process.pid} .*since 20.* writes there"),
        output_folder(tmp_path),
    ):
        pass
    _kill(process)
    # Its lock died with it, though the file is still there.
    assert os.listdir(tmp_path) == [LOCK_NAME]
    with output_folder(tmp_path):
        pass
    assert os.listdir(tmp_path) == []


def test_a_folder_appears_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "x") as temporary:
        (temporary / "a").write_text("half")
        raise RuntimeError
    assert os.listdir(tmp_path) == []
    with atomic_folder(tmp_path / "x") as temporary:
        (temporary / "a").write_text("whole")
    assert (tmp_path / "x" / "a").read_text() == "whole"
    named = f"^{re.escape(str(tmp_path / 'x'))}: Directory not empty"
    with pytest.raises(InputError, match=named), atomic_folder(tmp_path / "x") as temporary:
        (temporary / "b").write_text("too late")
    assert os.listdir(tmp_path) == ["x"] and os.listdir(tmp_path / "x") == ["a"]


def test_a_made_folder_goes_where_nothing_is_left_in_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own").mkdir()
    with made_folder("own/deep/deeper") as folder:
        assert folder.is_dir()
        os.chdir("/")
    assert list(tmp_path.rglob("*")) == [tmp_path / "own"]
    with made_folder(tmp_path / "own"):
        pass
    assert (tmp_path / "own").is_dir(), "it was there before"
    with made_folder(tmp_path / "a" / "b") as folder:
        (folder.parent / "kept").touch()
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == ["kept"]


def test_a_folder_that_cannot_be_made_is_refused_by_its_name(tmp_path):
    (tmp_path / "file").touch()
    for name in ("n" * 300, "file"):
        with pytest.raises(InputError, match=name), made_folder(tmp_path / name):
            pass


def test_what_a_link_leads_to_is_replaced_and_the_link_stays(tmp_path):
    (tmp_path / "real.txt").write_text("old")
    (tmp_path / "link.txt").symlink_to(tmp_path / "real.txt")
    with atomic_write(tmp_path / "link.txt") as path:
        path.write_text("new")
    assert (tmp_path / "link.txt").is_symlink() and (tmp_path / "real.txt").read_text() == "new"
