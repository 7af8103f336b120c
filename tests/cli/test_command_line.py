"""What every verb of the command line answers: help, wrong input, bugs, signals."""

from __future__ import annotations

import argparse
import errno
import importlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import sparsefeat
from sparsefeat.cli.frame import StageBar
from sparsefeat.cli.main import VERBS, main
from sparsefeat.errors import InputError, MissingExtraError, opening
from sparsefeat.process.tool import ToolParser, run_tool

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def sparsefeat_command(*arguments: object, **options) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "sparsefeat", *map(str, arguments)]
    return subprocess.run(
        command, capture_output=True, text=True, env=ENVIRONMENT, timeout=300, **options
    )


def _raise(error: BaseException) -> int:
    raise error


# ---- exit codes


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (InputError("what, where, expected"), 2, "what, where, expected"),
        (InputError("a.yaml: line 3\n\n  is odd"), 2, "a.yaml: line 3;   is odd"),
        (MissingExtraError("needs Open3D"), 2, "needs Open3D"),
        (KeyboardInterrupt(), 130, "stopped"),
    ],
)
def test_what_a_user_can_set_right_is_one_line(capfd, error, code, line):
    assert run_tool(lambda: _raise(error), interrupted="stopped") == code
    assert capfd.readouterr() == ("", f"{line}\n")


@pytest.mark.parametrize("kind", [ValueError, OSError, ImportError, TypeError, RuntimeError])
def test_any_other_exception_is_a_bug_and_is_not_hidden(kind):
    with pytest.raises(kind, match="a bug"):
        run_tool(lambda: _raise(kind("a bug")))


def test_the_code_of_the_work_is_that_of_the_tool():
    assert run_tool(lambda: 3) == 3


def test_a_path_that_cannot_be_opened_is_one_line(capfd):
    def work() -> int:
        with opening("out"):
            raise OSError(errno.ENOSPC, "No space left on device")

    assert run_tool(work) == 2
    assert capfd.readouterr().err == "out: No space left on device\n"


def test_traceback_shows_where_wrong_input_was_noticed(capfd):
    assert run_tool(lambda: _raise(InputError("odd")), argparse.Namespace(traceback=True)) == 2
    error = capfd.readouterr().err
    assert error.startswith("Traceback") and error.endswith("InputError: odd\n")


@pytest.mark.parametrize("before", [True, False])
def test_traceback_may_stand_before_or_behind_a_task(before, tmp_path):
    task = ["--traceback", "fuse"] if before else ["fuse", "--traceback"]
    arguments = [*task, tmp_path / "nowhere", "--output", tmp_path / "out"]
    done = sparsefeat_command("make-data", *arguments)
    assert (
        done.returncode == 2
        and "Traceback" in done.stderr
        and "no such folder" in done.stderr.splitlines()[-1]
    )


def test_a_bug_of_a_verb_shows_its_traceback_and_exits_with_1(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import sparsefeat.cli.voxelize as tool\n"
        "def run(args):\n    raise ValueError('torch would say so')\n"
        "tool.run = run\n"
    )
    environment = ENVIRONMENT | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    command = [
        sys.executable,
        ROOT / "tools" / "voxelize.py",
        "a.off",
        "--output",
        "out",
        "--resolution",
        "8",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback") and done.stderr.endswith(
        "ValueError: torch would say so\n"
    )


def test_pretrain_refuses_a_file_as_its_folder_before_rooms_are_made(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr("sparsefeat.pretrain.run", lambda *_, **__: pytest.fail("rooms were made"))
    (tmp_path / "a.txt").write_text("mine")
    assert main(["pretrain", "quickstart", "--output", str(tmp_path / "a.txt")]) == 2
    assert "--output" in (said := capfd.readouterr().err) and "expected a folder" in said
    assert (tmp_path / "a.txt").read_text() == "mine"


def test_who_stops_reading_gets_no_traceback():
    command = (
        f"'{sys.executable}' -m sparsefeat benchmark --list | head -n 1; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.stderr == "" and len(done.stdout.splitlines()) == 1
    assert done.returncode in (0, 130), "0 where all fitted into the pipe"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_standard_output_is_one_line():
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "sparsefeat", "benchmark", "--list"]
        done = subprocess.run(
            command, stdout=full, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT
        )
    assert (done.returncode, done.stderr) == (2, "output: No space left on device\n")


# ---- the dispatcher


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_without_loading_torch(verb):
    code = (
        "import sys\nfrom sparsefeat.cli.main import main\n"
        f"try:\n    main(['{verb}', '--help'])\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'scipy', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=ENVIRONMENT
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"usage: sparsefeat {verb.replace('_', '-')}")


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_a_script(verb):
    done = subprocess.run(
        [sys.executable, ROOT / "tools" / f"{verb}.py", "--version"],
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
    )
    assert (done.returncode, done.stdout) == (0, f"sparsefeat {sparsefeat.__version__}\n")


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("arguments", [[], ["--no-such-option"]])
def test_wrong_options_are_one_line(verb, arguments, capsys):
    if verb == "benchmark" and not arguments:
        pytest.skip("it needs no argument")
    with pytest.raises(SystemExit) as end:
        main([verb, *arguments])
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1
    assert error.startswith(f"sparsefeat {verb.replace('_', '-')}: ")


def test_the_help_lists_the_verbs(capsys):
    assert main(["--help"]) == 0
    text = capsys.readouterr().out
    assert all(f"  {verb.replace('_', '-')} " in text for verb in VERBS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [([], "expected one of extract"), (["extrakt"], "did you mean 'extract'")],
)
def test_an_unknown_verb_is_one_line_with_the_nearest(arguments, message, capsys):
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "nearest"),
    [
        ("extract a.ply --checkpoint c --output o --viewpont 0 0 0", "--viewpoint"),
        ("match a.off b.off --output o --shape --parzial", "--partial"),
        ("make-data rooms --output o --vertixes=3 --frame 3", None),
        ("make-data creatures --output o --vertixes=3", "--vertices"),
        ("evaluate matching --checkpoint c --data d --voxelsize 1", "--voxel-size"),
        ("pretrain quickstart optimizer.lr=1 --overrite", "--overwrite"),
        ("transfer quickstart --jsn a.json", "--json"),
        ("view a.ply --chekpoint c", "--checkpoint"),
    ],
)
def test_an_unknown_option_is_one_line_with_the_nearest_of_this_task(arguments, nearest, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments.split())
    error = capsys.readouterr().err
    assert end.value.code == 2 and error.count("\n") == 1 and "unrecognized arguments" in error
    hint = f"; did you mean {nearest!r}?" if nearest else ""
    assert error.endswith(f"{hint}; --help lists the options\n")
    assert ("did you mean" in error) == (nearest is not None)


def test_too_few_numbers_are_answered_with_the_form_of_the_option(capsys):
    with pytest.raises(SystemExit):
        main("extract a.ply --checkpoint c --output o --viewpoint 0,0,0".split())
    assert "expected 3 arguments, as in --viewpoint X Y Z; --help" in capsys.readouterr().err


@pytest.mark.parametrize("verb", ["pretrain", "transfer"])
def test_an_unknown_configuration_is_one_line_with_the_nearest(verb, capsys):
    assert main([verb, "quickstrt"]) == 2
    assert "did you mean 'quickstart'?; there are: " in capsys.readouterr().err


def test_the_version_is_that_of_the_package(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"sparsefeat {sparsefeat.__version__}\n"


def test_make_data_is_one_verb_in_two_spellings(capsys):
    for verb in ("make-data", "make_data"):
        with pytest.raises(SystemExit) as end:
            main([verb, "rooms", "--help"])
        assert end.value.code == 0 and "--rooms" in capsys.readouterr().out


def test_choices_of_the_command_line_are_the_librarys():
    from sparsefeat.benchmark import PRESETS
    from sparsefeat.cli import benchmark, evaluate, extract, make_data, voxelize
    from sparsefeat.evaluate.descriptors import BASELINES
    from sparsefeat.extract import DEFAULT_MAX_VOXELS, INTERPOLATIONS
    from sparsefeat.extract.voxelize_files import ATTRIBUTES, UP_AXES
    from sparsefeat.io.meshes import MESH_SUFFIXES
    from sparsefeat.io.pointcloud import POINT_SUFFIXES
    from sparsefeat.synthetic.creatures import FAMILIES, KINDS
    from sparsefeat.synthetic.fragments import LAYOUTS

    def option(module, name: str, *task: str) -> argparse.Action:
        found: list[argparse.Action] = []

        class Spy(ToolParser):
            def add_argument(self, *names, **options):
                action = super().add_argument(*names, **options)
                if name in names:
                    found.append(action)
                return action

        before, module.ToolParser = module.ToolParser, Spy
        try:
            with pytest.raises(SystemExit):
                module.parse([*task, "--help"])
        finally:
            module.ToolParser = before
        return found[0]

    assert option(extract, "--interpolation").choices == INTERPOLATIONS
    assert option(extract, "--max-voxels").default == DEFAULT_MAX_VOXELS
    assert option(extract, "inputs").help.partition(",")[0].split() == [
        s[1:] for s in POINT_SUFFIXES
    ]
    assert option(evaluate, "--interpolation").choices == INTERPOLATIONS
    assert option(evaluate, "--baselines").help.endswith(": " + ", ".join(BASELINES))
    assert option(voxelize, "--up").choices == UP_AXES
    assert option(voxelize, "--attributes").help.endswith(",".join(ATTRIBUTES))
    assert option(voxelize, "inputs").help.partition(",")[0].split() == [
        s[1:] for s in MESH_SUFFIXES
    ]
    assert option(make_data, "--layout").choices == LAYOUTS
    assert make_data.FAMILIES == tuple(FAMILIES) and option(
        make_data, "--families"
    ).choices == tuple(KINDS)
    assert option(benchmark, "--preset").choices == tuple(PRESETS)


def test_every_verb_is_a_module_with_a_main():
    for verb in VERBS:
        assert callable(importlib.import_module(f"sparsefeat.cli.{verb}").main)


# ---- signals and progress


def _interrupt(command: list, sent: int, ready, **options) -> subprocess.CompletedProcess:
    """Run a command and send it a signal once ``ready()``."""
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
        **options,
    )
    deadline = time.monotonic() + 120
    while not ready(process.pid) and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(sent)
    out, error = process.communicate(timeout=120)
    return subprocess.CompletedProcess(command, process.returncode, out, error)


def _children(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    try:
        return [int(word) for word in path.read_text().split()]
    except OSError:
        return []


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_stopped_tool_leaves_one_line_and_no_worker(tmp_path, sent):
    pytest.importorskip("embreex", reason="casting rays needs embreex")
    workers: list[int] = []

    def ready(pid: int) -> bool:
        workers[:] = _children(pid)
        return len(workers) == 2

    options = [
        "--rooms",
        "4",
        "--fragments",
        "8",
        "--workers",
        "2",
        "--layout",
        "train",
        "--seed",
        "0",
    ]
    command = [
        sys.executable,
        "-m",
        "sparsefeat",
        "make-data",
        "rooms",
        "--output",
        tmp_path / "rooms",
        *options,
    ]
    done = _interrupt(command, sent, ready)
    if sent != signal.SIGKILL:
        assert done.returncode == 130
        assert done.stderr == "interrupted; the scenes that are complete stay\n"
    deadline = time.monotonic() + 30
    while any(map(_runs, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(workers) == 2 and not any(map(_runs, workers))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks for processes in /proc")
def test_a_killed_worker_is_one_line(tmp_path):
    pytest.importorskip("embreex", reason="casting rays needs embreex")
    options = [
        "--rooms",
        "4",
        "--fragments",
        "8",
        "--workers",
        "2",
        "--layout",
        "train",
        "--seed",
        "0",
    ]
    command = [
        sys.executable,
        "-m",
        "sparsefeat",
        "make-data",
        "rooms",
        "--output",
        tmp_path / "rooms",
        *options,
    ]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=ENVIRONMENT)
    deadline = time.monotonic() + 120
    while len(_children(process.pid)) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(_children(process.pid)[0], signal.SIGKILL)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert error.count("\n") == 1 and "a worker process was killed" in error


def test_sigterm_is_handled_within_the_work_only():
    before = signal.getsignal(signal.SIGTERM)

    def work() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return 0

    assert run_tool(work) == 130
    assert signal.getsignal(signal.SIGTERM) is before


def test_lines_are_reported_while_a_bar_is_open(capfd):
    with StageBar() as bar:
        bar("reading", 0.5, 2, "a.ply")
        bar.report("a.ply: odd")
        bar("writing", 1, 2, "a.npz")
    assert capfd.readouterr().err == "a.ply: odd\n", "no bar where there is no terminal"
