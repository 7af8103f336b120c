"""What tools answer when their work cannot go on."""

import errno

import pytest

from sparsefeat.cli.frame import StageBar, run_tool


def _raise(error: BaseException) -> int:
    raise error


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("what, where, expected"), 2, "what, where, expected"),
        (ImportError("needs Open3D"), 2, "needs Open3D"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "out: No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "a.npz"), 2, "a.npz: Permission denied"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_what_a_user_can_set_right_is_one_line(capfd, error, code, line):
    assert run_tool(lambda: _raise(error), "out", "stopped") == code
    assert capfd.readouterr() == ("", f"{line}\n")


def test_the_code_of_the_work_is_that_of_the_tool_and_bugs_are_not_hidden():
    assert run_tool(lambda: 3, "out") == 3
    with pytest.raises(TypeError):
        run_tool(lambda: _raise(TypeError("a bug")), "out")


def test_lines_are_reported_while_a_bar_is_open(capfd):
    with StageBar() as bar:
        bar("reading", 0.5, 2, "a.ply")
        bar.report("a.ply: odd")
        bar("writing", 1, 2, "a.npz")
    assert "a.ply: odd\n" in capfd.readouterr().err
