"""Damaged files by the thousand: every reader gives data or one InputError, in bounded time and memory.

    python tests/robustness/fuzz.py --inputs 100000 --seed 0 --json runs/fuzz.json
    python tests/robustness/fuzz.py --reader mesh.ply --seed 0 --first 1234 --inputs 1      # one input again

Every reader runs in processes of its own with a limit on memory. An input is a valid file (corpus.py) with some of
its bytes or numbers changed; which ones follows from the seed and the number of the input alone.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import random
import re
import resource
import signal
import sys
import tempfile
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path

MEMORY = 1 << 30  # bytes that a reader may add to what it has at the start
_TURN = 500  # inputs of a reader before the next reader has its turn
SECONDS = 10.0  # for one input; the corpus is a few kilobytes a file

_NUMBER = re.compile(rb"[0-9]+")
_NUMBERS = (
    b"0", b"1", b"-1", b"2", b"3", b"255", b"65536", b"2147483647", b"4294967296", b"9999999999", b"1e400", b"nan",
    b"-inf", b"1.0D+00", b"1,5", b"1_0", b"0x10", b"99999999999999999999999", b"9" * 5000, "\u00b2".encode(), b"",
)  # fmt: skip
_BYTES = (
    b"\0",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\n",
    b"\r",
    b" ",
    b"#",
    b",",
    b";",
    b'"',
    b"\\",
    b"-",
    b"{",
    b"[",
    b"&",
    b"*",
)


class Late(BaseException):
    """An input takes too long. No Exception, so that no reader catches it."""


def mutate(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """``data`` with one to four changes."""
    from corpus import members, repack

    parts = members(data)
    if parts and rng.random() < 0.7:
        # Inside of a zip file, whose sums would otherwise catch nearly everything.
        place = rng.randrange(len(parts))
        if rng.random() < 0.5:
            place = next(
                (i for i, (info, _) in enumerate(parts) if info.filename.endswith("data.pkl")),
                place,
            )
        parts[place] = (
            parts[place][0],
            mutate_plain(parts[place][1], [inner for _, inner in parts], rng),
        )
        return repack(parts)
    return mutate_plain(data, others, rng)


def mutate_plain(data: bytes, others: list[bytes], rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        place = rng.randrange(len(out) + 1)
        length = min(rng.choice((1, 1, 2, 4, 8, 64)), len(out) - place)
        kind = rng.randrange(9)
        if kind == 0:
            out[place : place + length] = rng.randbytes(length)
        elif kind == 1 and place < len(out):
            out[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            del out[place : place + length]
        elif kind == 3:
            out[place:place] = out[place : place + length] * rng.choice((1, 2, 100))
        elif kind == 4:
            del out[place:]
        elif kind == 5:
            out[place:place] = rng.choice(_BYTES) * rng.choice((1, 1, 1, 3, 2000))
        elif kind == 6:
            other = rng.choice(others)
            start = rng.randrange(len(other) + 1)
            out[place : place + length] = other[start : start + rng.choice((4, 16, 64, 100000))]
        elif kind == 7:
            out[place : place + length] = rng.choice(
                (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(4), bytes([128] * 8))
            )
        else:
            numbers = list(_NUMBER.finditer(bytes(out)))
            if numbers:
                number = rng.choice(numbers)
                out[number.start() : number.end()] = rng.choice(_NUMBERS)
    return bytes(out)


def try_one(read, path: Path, seconds: float = SECONDS) -> tuple[str, str]:
    """How reading a file ends: "read", "refused" or "bad", and what is bad."""
    from sparsefeat.errors import InputError

    def late(*_):
        raise Late

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, seconds)  # of its own work, whatever else the machine does
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            read(path)
        return "read", ""
    except InputError as error:
        text = str(error)
        if "\n" in text or path.name not in text or len(text) > 2000:
            return "bad", f"message of {len(text)} characters: {text[:300]!r}"
        return "refused", ""
    except Late:
        return "bad", f"longer than {seconds} s"
    except BaseException as error:
        return "bad", f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def limit_memory(extra: int = MEMORY) -> None:
    """Let this process have ``extra`` bytes more than it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    size = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def input_bytes(reader: str, seed: int, number: int, files: list[bytes]) -> bytes:
    rng = random.Random(f"{reader} {seed} {number}")
    return mutate(rng.choice(files), files, rng)


def work(reader: str, seed: int, first: int, count: int, events: Connection) -> None:
    """Try inputs; sends the number of each before it is read, and how it ended."""
    from corpus import READERS, corpus

    suffix, read = READERS[reader]
    files = corpus(reader)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"input{suffix}"
        for data in files:
            path.write_bytes(data)
            ending, why = try_one(read, path)
            if ending != "read" and not (reader == "config.yaml" and data == files[-1]):
                raise SystemExit(f"{reader}: a valid file of the corpus is {ending}: {why}")
        limit_memory()
        for number in range(first, first + count):
            path.write_bytes(input_bytes(reader, seed, number, files))
            events.send((number, None, ""))
            events.send((number, *try_one(read, path)))


def run(reader: str, seed: int, first: int, count: int, say=print) -> dict:
    """Try inputs in child processes, also after one of them has died."""
    # Forked, so that torch is imported once.
    context = multiprocessing.get_context("fork")
    totals = {"inputs": 0, "read": 0, "refused": 0, "bad": []}
    last = first + count
    while first < last:
        receive, send = context.Pipe(duplex=False)
        child = context.Process(target=work, args=(reader, seed, first, last - first, send))
        child.start()
        send.close()
        at = None
        with contextlib.suppress(EOFError):  # the child has ended
            while True:
                at, ending, why = receive.recv()
                if ending is not None:
                    first, at = at + 1, None
                    totals["inputs"] += 1
                    if ending == "bad":
                        totals["bad"].append({"input": first - 1, "why": why})
                        say(f"{reader}: input {first - 1}: {why}")
                    else:
                        totals[ending] += 1
        child.join()
        if first < last:
            why = f"the process ended with {child.exitcode}"
            if at is None:
                raise SystemExit(f"{reader}: {why}")
            totals["inputs"] += 1
            totals["bad"].append({"input": at, "why": why})
            say(f"{reader}: input {at}: {why}")
            first = at + 1
    return totals


def write_report(path: Path, seed: int, readers: dict, minutes: float) -> None:
    """Write the counts as every published result is written."""
    import safetensors
    import trimesh
    import yaml

    from sparsefeat.io.results import write_result

    total = sum(counts["inputs"] for counts in readers.values())
    words = ["python", "tests/robustness/fuzz.py", "--inputs", str(total), "--seed", str(seed)]
    numbers = {
        "inputs": total,
        "bad": sum(len(counts["bad"]) for counts in readers.values()),
        "minutes": round(minutes, 1),
        "limits": {"memory_bytes": MEMORY, "seconds_per_input": SECONDS},
        "versions": {m.__name__: m.__version__ for m in (trimesh, safetensors, yaml)},
        "readers": readers,
    }
    write_result(path.parent.name, path.stem, numbers, words, [seed], path.parent.parent)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--inputs", type=int, default=100_000, help="in all, shared by the readers")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--reader", action="append", help="only this one; may be given several times"
    )
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first input of each reader"
    )
    parser.add_argument("--json", type=Path, help="write the counts there, after each reader")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on after the inputs that are counted in the file",
    )
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no new turn after this time"
    )
    arguments = parser.parse_args()

    import torch
    from corpus import READERS

    torch.set_num_threads(1)
    found, minutes = {}, 0.0
    if arguments.resume:
        before = json.loads(arguments.json.read_text())
        if before["seeds"] != [arguments.seed]:
            parser.error(f"--resume: {arguments.json} was made with the seeds {before['seeds']}")
        found, minutes = before["numbers"]["readers"], before["numbers"]["minutes"]
    readers = arguments.reader or list(READERS)
    each = -(-arguments.inputs // len(readers))
    end = time.monotonic() + 60 * arguments.minutes
    # In turns, so that an interrupted run has tried all readers.
    for last in range(_TURN, each + _TURN, _TURN):
        for reader in readers:
            counts = found.setdefault(reader, {"inputs": 0, "read": 0, "refused": 0, "bad": []})
            missing = min(last, each) - counts["inputs"]
            start = time.monotonic()
            if missing <= 0 or start > end:
                continue
            more = run(reader, arguments.seed, arguments.first + counts["inputs"], missing)
            found[reader] = {key: counts[key] + more[key] for key in counts}
            minutes += (time.monotonic() - start) / 60
            print(
                f"{reader}: {found[reader]['inputs']} inputs, {len(more['bad'])} more bad",
                flush=True,
            )
            if arguments.json:
                write_report(arguments.json, arguments.seed, found, minutes)
    bad = sum(len(counts["bad"]) for counts in found.values())
    print(f"{sum(counts['inputs'] for counts in found.values())} inputs, {bad} bad")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
