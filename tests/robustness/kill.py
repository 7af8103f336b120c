"""Kills every tool at random times, and looks at what is left.

    python tests/robustness/kill.py --kills 12 --result kills

After each kill: no process of the tool lives on; every file of a final name is whole; after the tool ran once more, with
``--resume`` where it has that, the output has the bytes of a run that nobody disturbed, and nothing else.

A tool runs in a child that is forked from this process, so that a kill costs no second import of torch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path

import numpy as np
import torch

from sparsefeat.checkpoint import read_state, save_checkpoint
from sparsefeat.io.gtlog import write_log
from sparsefeat.io.lock import LOCK_NAME
from sparsefeat.io.pointcloud import write_ply
from sparsefeat.io.results import write_result
from sparsefeat.models import create_model

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
TIMED = ("log.jsonl", "tensorboard")
"""What holds times, and so differs from run to run."""
_MODULES = (
    "extract.files",
    "extract.voxelize_files",
    "evaluate.journal",
    "evaluate.pictures",
    "pretrain",
    "transfer",
    "transfer.creatures",
    "synthetic.rooms",
    "synthetic.creatures",
    "data.rgbd",
    "io.packaged",
)
_ENDS_WITHIN_S = 600.0
_STARTS = 0.02
"""Seconds in which a forked child begins."""


@dataclass
class Case:
    """A tool on small data.

    Attributes:
        verb: of the command line.
        arguments: with ``{out}`` and ``{data}``.
        again: arguments added for the run after a kill, where ``begun`` says that there is something to go on with.
        begun: whether to add them, from the output folder.
        present: exit codes of a second run that are right, where the output was complete already.
    """

    verb: str
    arguments: Sequence[str]
    again: Sequence[str] = ()
    begun: Callable[[Path], bool] = lambda output: True
    present: tuple[int, ...] = (0,)


CASES = {
    "extract": Case(
        "extract",
        [
            "{data}/clouds",
            "--checkpoint",
            "{data}/net.safetensors",
            "--no-image",
            "--output",
            "{out}/o",
        ],
    ),
    "voxelize": Case(
        "voxelize", ["{data}/meshes", "--voxel-size", "0.05", "--no-image", "--output", "{out}/o"]
    ),
    "evaluate": Case(
        "evaluate",
        [
            "matching",
            "--data",
            "{data}/scenes",
            "--checkpoint",
            "{data}/net.safetensors",
            "--json",
            "{out}/o.json",
        ],
        again=["--resume"],
    ),
    "pretrain": Case(
        "pretrain",
        ["{data}/pretrain.yaml", "--output", "{out}/o", "data.root={data}/fragments"],
        again=["--resume"],
        begun=lambda output: (output / "o/last.pt").is_file(),
    ),
    "transfer": Case(
        "transfer",
        [
            "{data}/transfer.yaml",
            "--output",
            "{out}/o",
            "data.root={data}/shapes",
            "cache={out}/cache",
        ]
        + ["features.checkpoint={data}/net.safetensors"],
    ),
    "fuse": Case(
        "make_data",
        ["fuse", "{data}/recording", "--frames", "2", "--scene", "s", "--intrinsics", "60,60,40,30"]
        + ["--output", "{out}/o"],
    ),
    "creatures": Case(
        "make_data",
        ["creatures", "--count", "1", "--poses", "1", "--families", "hand", "--vertices", "2500"]
        + ["--landmarks", "2500", "--output", "{out}/o"],
        present=(0, 2),
    ),
    "rooms": Case(
        "make_data",
        ["rooms", "--rooms", "1", "--fragments", "2", "--frames", "2", "--output", "{out}/o"],
    ),
}


@dataclass
class Outcome:
    """What was found of one tool."""

    kills: int = 0
    by_signal: dict[str, int] = field(default_factory=dict)
    too_late: int = 0
    swept: int = 0
    failures: list[str] = field(default_factory=list)


def make_inputs(folder: Path) -> None:
    """Small inputs for all cases."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    options = {
        "conv1_kernel_size": 3,
        "depth": 1,
        "channels": [8, 8],
        "tr_channels": [8, 8],
        "out_channels": 8,
    }
    save_checkpoint(
        folder / "net.safetensors", create_model("ResUNetBN2C", in_channels=1, **options), 0.05
    )
    sheet = np.column_stack([rng.uniform(0, 2, (3000, 2)), 0.1 * rng.random(3000)])
    for name in (
        "clouds",
        "meshes",
        "fragments",
        "scenes/s",
        "scenes/s-evaluation",
        "shapes",
        "recording/depth",
    ):
        (folder / name).mkdir(parents=True)
    for k in range(4):
        write_ply(folder / f"clouds/{k}.ply", sheet + k)
        write_ply(folder / f"scenes/s/cloud_bin_{k}.ply", sheet)
    write_log(
        folder / "scenes/s-evaluation/gt.log",
        [(i, j, 4, np.eye(4)) for j in range(4) for i in range(j)],
    )
    for k in range(3):
        np.savez(folder / f"fragments/a@seq-01_{k}.npz", pcd=sheet.astype(np.float32))
    pairs = [f"a@seq-01_{i}.npz a@seq-01_{j}.npz 0.9\n" for i, j in ((0, 1), (1, 2), (0, 2))]
    (folder / "fragments/a@seq-01-0.30.txt").write_text("".join(pairs))
    for k in range(6):
        vertices, faces, labels = _bumpy_sphere(rng)
        lines = [
            "OFF",
            f"{len(vertices)} {len(faces)} 0",
            *(" ".join(f"{x:.6f}" for x in row) for row in vertices),
        ]
        lines += [f"3 {a} {b} {c}" for a, b, c in faces]
        for place in ("meshes", "shapes"):
            (folder / place / f"b{k}.off").write_text("\n".join(lines) + "\n")
        (folder / f"shapes/b{k}.vlabels.txt").write_text("\n".join(map(str, labels)) + "\n")
    _make_recording(folder / "recording", rng)
    (folder / "pretrain.yaml").write_text(
        "data: {validation_pairs: 0, workers: 1}\n"
        "model: {conv1_kernel_size: 3, depth: 1, channels: [8, 8], tr_channels: [8, 8], out_channels: 8}\n"
        "loss: {points: 64}\noptimizer: {name: adam, lr: 0.01, schedule: cosine}\n"
        "voxel_size: 0.1\nbatch_size: 1\nepochs: null\nsteps: 6\nvalidate_every: 0\nsave_every: 2\npictures: false\n"
    )
    (folder / "transfer.yaml").write_text(
        "task: segmentation\ndata: {options: {train_share: 0.5}}\n"
        "methods: [xyz]\nshots: [1]\nseeds: [0]\nrotate: false\n"
    )


def run(
    cases: Sequence[str],
    kills: int,
    seed: int,
    say: Callable[[str], None] = print,
    limit_s: float = float("inf"),
) -> dict[str, Outcome]:
    """Kill each of the cases so many times, or until the time is over.

    Args:
        cases: names in ``CASES``.
        kills: of each.
        seed: of times and signals.
        say: takes a line per case and per failure.
        limit_s: seconds, all in all; a case that is begun is ended early.
    """
    _import_all()
    rng = random.Random(seed)
    outcomes = {}
    end = time.monotonic() + limit_s
    with tempfile.TemporaryDirectory(prefix="kills-") as work:
        data = Path(work, "data")
        data.mkdir()
        make_inputs(data)
        for name in cases:
            outcomes[name] = _attack(name, CASES[name], Path(work), kills, rng, say, end)
            found = outcomes[name]
            say(
                f"{name}: {found.kills} kills {found.by_signal}, {found.swept} leftovers swept, {len(found.failures)} failures"
            )
    return outcomes


def _import_all() -> None:
    """Once, here, and not in each child."""
    torch.set_num_threads(1)
    for module in (*(f"cli.{case.verb}" for case in CASES.values()), *_MODULES):
        import_module(f"sparsefeat.{module}")
    with contextlib.suppress(ImportError):
        import_module("torch.utils.tensorboard")  # an extra
    import_module("torch._dynamo")  # every optimiser imports it


def _attack(
    name: str,
    case: Case,
    work: Path,
    kills: int,
    rng: random.Random,
    say: Callable[[str], None],
    end: float,
) -> Outcome:
    outcome = Outcome()
    whole = work / f"{name}-whole"
    whole.mkdir()
    started = time.monotonic()
    code, output = _finish(_start(case, case.arguments, whole, work))
    duration = time.monotonic() - started
    if code != 0:
        outcome.failures.append(f"undisturbed: exit code {code}: {output[-500:]}")
        say(f"{name}: {outcome.failures[-1]}")
        return outcome
    while outcome.kills < kills and outcome.too_late < 10 * kills and time.monotonic() < end:
        place = work / f"{name}-{outcome.kills}-{outcome.too_late}"
        place.mkdir()
        sent = SIGNALS[outcome.kills % len(SIGNALS)]
        moment = rng.uniform(_STARTS, max(duration, 2 * _STARTS))
        late = outcome.too_late
        problems = _kill_once(case, work, place, whole, sent, moment, outcome)
        duration *= 0.8 if outcome.too_late > late else 1.0  # the first run is slower than others
        for problem in problems:
            line = f"{sent.name} after {moment:.2f} s: {problem}"
            outcome.failures.append(line.replace(str(work), "..."))
            say(f"{name}: {outcome.failures[-1]}")
        shutil.rmtree(place)
    return outcome


def _kill_once(
    case: Case,
    work: Path,
    place: Path,
    whole: Path,
    sent: signal.Signals,
    moment: float,
    outcome: Outcome,
) -> list[str]:
    child = _start(case, case.arguments, place, work)
    time.sleep(moment)
    if os.waitpid(child[0], os.WNOHANG) != (0, 0):
        outcome.too_late += 1
        child[1].close()
        return []
    os.kill(child[0], sent)
    code, output = _finish(child)
    outcome.kills += 1
    outcome.by_signal[sent.name] = outcome.by_signal.get(sent.name, 0) + 1
    problems = []
    # It may have been ready just then.
    expected = (-sent, 0) if sent == signal.SIGKILL else (130, 0)
    # A child that has not yet set its handlers ends of the signal itself.
    if code not in (*expected, -sent):
        problems.append(f"exit code {code}: {output[-500:]}")
    if "Traceback" in output:
        problems.append(f"traceback: {output[-1500:]}")
    alive = _living(child[0])
    if alive:
        problems.append(f"{len(alive)} processes live on: {alive}")
        for process in alive:
            os.kill(process, signal.SIGKILL)
    problems += [f"not whole: {path}" for path in _broken(place, whole)]
    left = len(_leftovers(place))
    complete = not _difference(place, whole)
    extra = list(case.again) if case.begun(place) else []
    code, output = _finish(_start(case, [*case.arguments, *extra], place, work))
    if code not in (case.present if complete else (0,)):
        problems.append(f"the next run: exit code {code}: {output[-500:]}")
    problems += [f"left behind after the next run: {path}" for path in _leftovers(place)]
    outcome.swept += left
    problems += _difference(place, whole)
    return problems


def _start(case: Case, arguments: Sequence[str], out: Path, work: Path):
    """Fork a child that runs the tool in a session of its own: (process, its output)."""
    words = [word.format(out=out, data=work / "data") for word in arguments]
    log = tempfile.TemporaryFile()  # noqa: SIM115 - the parent closes it
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child, log
    code = 1
    try:
        os.setsid()
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        os.chdir(out)
        code = import_module(f"sparsefeat.cli.{case.verb}").main(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _finish(child) -> tuple[int, str]:
    """Wait for the end: (exit code or minus the signal, what it printed)."""
    process, log = child
    end = time.monotonic() + _ENDS_WITHIN_S
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            break
        if time.monotonic() > end:
            os.killpg(process, signal.SIGKILL)
            os.waitpid(process, 0)
            log.close()
            return -999, f"did not end within {_ENDS_WITHIN_S:g} s"
        time.sleep(0.05)
    log.seek(0)
    text = log.read().decode(errors="replace")
    log.close()
    return os.waitstatus_to_exitcode(status), text


def _living(session: int, patience_s: float = 10.0) -> list[int]:
    """Processes of a session that are no zombies, after some patience."""
    end = time.monotonic() + patience_s
    while True:
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    state, _, _, owner = (entry / "stat").read_text().rpartition(")")[2].split()[:4]
                except (OSError, ValueError):
                    continue
                if int(owner) == session and state != "Z":
                    found.append(int(entry.name))
        if not found or time.monotonic() > end:
            return found
        time.sleep(0.05)


def _files(root: Path) -> dict[str, Path]:
    files = (path for path in root.rglob("*") if path.is_file() or path.is_symlink())
    kept = {str(path.relative_to(root)): path for path in files}
    return {
        name: path for name, path in kept.items() if not any(part in TIMED for part in path.parts)
    }


def _is_temporary(name: str) -> bool:
    return any(part.startswith(".") for part in Path(name).parts)


def _leftovers(root: Path) -> list[str]:
    hidden = {str(path.relative_to(root)) for path in root.rglob("*") if path.name.startswith(".")}
    return sorted(hidden | {name for name in _files(root) if name.endswith((LOCK_NAME, ".part"))})


def _broken(place: Path, whole: Path) -> list[str]:
    """Files of a final name that are neither those of a whole run nor readable ones of an earlier step."""
    broken = []
    wanted = _files(whole)
    for name, path in _files(place).items():
        if _is_temporary(name) or name.endswith(".part"):
            continue
        if name in wanted and _bytes(path) == _bytes(wanted[name]):
            continue
        try:
            if path.suffix == ".safetensors":
                read_state(path)
            elif path.suffix == ".pt":
                torch.load(path, weights_only=True)
            else:
                broken.append(name)
        except ValueError as error:
            broken.append(f"{name}: {error}")
    return broken


def _difference(place: Path, whole: Path) -> list[str]:
    """How the output differs from that of a run that nobody disturbed."""
    found, wanted = _files(place), _files(whole)
    lines = [f"missing: {name}" for name in wanted if name not in found]
    lines += [f"too much: {name}" for name in found if name not in wanted]
    shared = [name for name in wanted if name in found]
    return lines + [
        f"other bytes: {name}" for name in shared if _bytes(found[name]) != _bytes(wanted[name])
    ]


def _bytes(path: Path) -> bytes:
    """The content, without the folder that it was written to."""
    if path.suffix == ".pt":  # pickles of equal values differ by which of them were one object
        return repr(_plain(torch.load(path, weights_only=True))).encode()
    content = path.read_bytes()
    return (
        content
        if path.suffix != ".yaml" and path.suffix != ".json"
        else _without_place(content, path)
    )


def _plain(value):
    if isinstance(value, torch.Tensor):
        return value.dtype, value.tolist()
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _without_place(content: bytes, path: Path) -> bytes:
    for parent in path.parents:
        content = content.replace(str(parent).encode(), b"") if len(parent.parts) > 3 else content
    return content


def _bumpy_sphere(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rows, columns = 12, 16
    polar = np.linspace(0, np.pi, rows + 1)[1:-1]
    around = np.arange(columns) * 2 * np.pi / columns
    ring = [
        (np.sin(p) * np.cos(a), np.sin(p) * np.sin(a), np.cos(p)) for p in polar for a in around
    ]
    vertices = np.array([(0, 0, 1), *ring, (0, 0, -1)]) * (1 + 0.1 * rng.random((len(ring) + 2, 1)))
    faces = [(0, 1 + k, 1 + (k + 1) % columns) for k in range(columns)]
    for row in range(rows - 2):
        for k in range(columns):
            a, b = 1 + row * columns + k, 1 + row * columns + (k + 1) % columns
            faces += [(a, a + columns, b), (b, a + columns, b + columns)]
    last = len(vertices) - 1
    faces += [
        (last, last - columns + (k + 1) % columns, last - columns + k) for k in range(columns)
    ]
    return vertices, np.array(faces), (vertices[:, 2] > 0).astype(int)


def _make_recording(folder: Path, rng: np.random.Generator) -> None:
    from PIL import Image

    rows, columns = np.mgrid[:60, :80]
    poses = []
    for k in range(6):
        depth = 1200 + 3 * rows + 200 * np.sin(columns / 9) + rng.normal(0, 1, rows.shape)
        Image.fromarray(depth.astype(np.uint16)).save(folder / f"depth/{k:06d}.png")
        pose = np.eye(4)
        pose[0, 3] = 0.01 * k
        poses.append((k, k, k + 1, pose))
    write_log(folder / "trajectory.log", poses)


def _say(line: str) -> None:
    print(line, flush=True)


def main() -> int:
    """Kill, print, write the figures; 1 if anything was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=12, help="of each tool (default: %(default)s)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--jobs", type=int, default=1, help="tools at a time (default: %(default)s)"
    )
    parser.add_argument("--minutes", type=float, default=float("inf"), help="of each tool at most")
    parser.add_argument("--json", type=Path, help="write the figures there")
    parser.add_argument("--result", metavar="NAME", help="also write results/robustness/NAME.json")
    args = parser.parse_args()
    _import_all()
    outcomes = {}
    with ProcessPoolExecutor(args.jobs, mp_context=multiprocessing.get_context("fork")) as pool:
        parts = [
            pool.submit(run, [name], args.kills, args.seed, _say, 60 * args.minutes)
            for name in args.cases
        ]
        for part in parts:
            outcomes |= part.result()
    numbers = {name: vars(outcome) for name, outcome in outcomes.items()}
    total = sum(outcome.kills for outcome in outcomes.values())
    failures = sum(len(outcome.failures) for outcome in outcomes.values())
    print(f"{total} kills of {len(outcomes)} tools, {failures} failures")
    report = {"seed": args.seed, "kills": total, "failures": failures, "tools": numbers}
    if args.result:
        command = ["python", "tests/robustness/kill.py", *sys.argv[1:]]
        seconds = sum(os.times()[:4])
        write_result("robustness", args.result, report, command, [args.seed], cpu_seconds=seconds)
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=1) + "\n")
    return 1 if failures else 0


if __name__ == "__main__":
    raise SystemExit(main())
