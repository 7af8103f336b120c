"""What a run says while it goes: JSON lines always, a progress bar and TensorBoard where wanted."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

from sparsefeat.errors import opening, warn
from sparsefeat.io.atomic import atomic_write
from sparsefeat.process.progress import Progress


class RunLog:
    """Log of one run.

    Args:
        output: folder of ``log.jsonl``.
        first: the step to go on from; later lines of an interrupted run are dropped.
        steps: steps in all.
        show_progress: say on standard error how far it is, with loss, pairs/s and time left.
        other_pairs: what was validated before was measured on other pairs; it stays, but does not count any more.
    """

    def __init__(
        self, output: Path, first: int, steps: int, show_progress: bool, other_pairs: bool = False
    ):
        path = output / "log.jsonl"
        kept = [line for line in _lines(path) if first and line["step"] <= first]
        if other_pairs:
            kept = [line | {"other_pairs": True} if "validation" in line else line for line in kept]
        with opening(path):
            with atomic_write(path) as temporary:
                temporary.write_text("".join(json.dumps(line) + "\n" for line in kept))
            self._file = path.open("a", buffering=1)
        self._progress = Progress(
            "pretrain", steps, "step", first, show_progress, dynamic_ncols=True
        )
        self._board = None
        with contextlib.suppress(ImportError):  # TensorBoard is an extra
            from torch.utils.tensorboard import SummaryWriter

            with opening(output):
                self._board = SummaryWriter(output / "tensorboard", purge_step=first)
        self._loss: float | None = None

    def step(self, step: int, record: dict[str, float]) -> None:
        """One optimiser step: its loss, pairs, rate, angle and seconds."""
        self._file.write(json.dumps({"step": step} | record) + "\n")
        # Smoothed for the bar alone: single pairs differ a lot.
        loss = record["loss"]
        self._loss = loss if self._loss is None else 0.95 * self._loss + 0.05 * loss
        seconds = sum(value for name, value in record.items() if name.endswith("_s"))
        note = f"loss={self._loss:.3f}, pairs_per_s={record['pairs'] / max(seconds, 1e-9):.2f}"
        self._progress(step, note=note)
        if self._board:
            for name, value in record.items():
                self._board.add_scalar(f"train/{name}", value, step)

    def validation(self, step: int, values: dict[str, float]) -> None:
        """A validation's numbers."""
        self._file.write(json.dumps({"step": step, "validation": values}) + "\n")
        first = ", ".join(f"{name} {value:.3f}" for name, value in list(values.items())[:2])
        self._progress.write(f"step {step}: held-out {first}", error=False)
        if self._board:
            for name, value in values.items():
                self._board.add_scalar(f"validation/{name}", value, step)

    def close(self) -> None:
        """Close files and bar."""
        self._progress.close()
        self._file.close()
        if self._board:
            self._board.close()


def read_log(output: Path) -> tuple[list[dict], list[dict]]:
    """The lines of steps and those of validations of a run, on the pairs that it validates on now."""
    lines = _lines(output / "log.jsonl")
    steps = [line for line in lines if isinstance(line.get("loss"), float)]
    validations = [line for line in lines if isinstance(line.get("validation"), dict)]
    return steps, [line for line in validations if not line.get("other_pairs")]


def _lines(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    found = []
    with opening(path):
        text = path.read_text(encoding="utf-8", errors="replace")
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        try:
            record = json.loads(line)
        except (ValueError, RecursionError):
            record = None
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            found.append(record)
        elif number < len(lines):  # the last one is cut off by an interruption
            warn(f"{path}: line {number} is damaged and left out")
    return found
