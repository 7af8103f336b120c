"""Every code block of the README and of the documentation runs, or says why it is not run here."""

from __future__ import annotations

import glob
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from conftest import ROOT

from sparsefeat import minkowski
from sparsefeat.cli.main import main
from sparsefeat.io.meshes import read_mesh
from sparsefeat.io.pointcloud import read_points, write_ply
from sparsefeat.synthetic.creatures import make_creatures
from sparsefeat.synthetic.rooms import make_rooms

# Results and notes are written by tools, from runs that take hours.
PAGES = [
    ROOT / "README.md",
    *(
        path
        for path in sorted((ROOT / "docs").rglob("*.md"))
        if path.parent.name not in ("results", "notes")
    ),
]
EXECUTED = ("python", "bash", "console")
_BLOCK = re.compile(
    r"(?:<!-- not run: (?P<reason>[^>]+) -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A fenced block of a page.

    ``line``: of its first line of code, counted from 1. ``reason``: why it is not run, or None.
    """

    language: str
    code: str
    line: int
    reason: str | None


def blocks(text: str) -> list[Block]:
    """The blocks of a page that would be executed, in order."""
    return [
        Block(
            match["language"],
            match["code"],
            text.count("\n", 0, match.start("code")) + 1,
            match["reason"],
        )
        for match in _BLOCK.finditer(text)
        if match["language"] in EXECUTED
    ]


def commands(code: str) -> list[list[str]]:
    """The words of each command of a shell block; lines end in a backslash where a command goes on."""
    lines = code.replace("\\\n", " ").splitlines()
    words = [shlex.split(line.removeprefix("$ "), comments=True) for line in lines]
    return [command for command in words if command]


def run_command(words: list[str]) -> None:
    """Run a command of this package in this process: loading torch for each takes longer than its work."""
    if words[0] == "sparsefeat":
        arguments = words[1:]
    elif words[0] == "python" and words[1].startswith("tools/"):
        arguments = [Path(words[1]).stem.replace("_", "-"), *words[2:]]
    else:
        pytest.fail(f"{shlex.join(words)}: neither sparsefeat nor python tools/; say why not run")
    expanded = [path for word in arguments for path in sorted(glob.glob(word)) or [word]]
    assert main(expanded) == 0, shlex.join(words)


@pytest.fixture(scope="session")
def inputs(tmp_path_factory) -> Path:
    """What the README calls scan.ply, scan1.ply and scan2.ply, a.off and b.off, and a mesh."""
    root = tmp_path_factory.mktemp("inputs")
    make_rooms(
        root / "rooms", 0, rooms=1, fragments_per_room=2, layout="test", workers=1, frames=12
    )
    for k, path in enumerate(sorted((root / "rooms" / "room-0000").glob("cloud_bin_*.ply")), 1):
        write_ply(root / f"scan{k}.ply", read_points(path).points[::2])
    write_ply(root / "scan.ply", read_points(root / "scan1.ply").points)
    make_creatures(
        root / "people", 0, count=1, poses=2, families=["humanoid"], vertices=2500, workers=1
    )
    a, b = sorted((root / "people").rglob("*.off"))
    for name, path in (("body.off", a), ("a.off", a), ("b.off", b)):
        (root / name).write_bytes(path.read_bytes())
    return root


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Iterator[Path]:
    """A folder of a page's own; what a page installs is taken back."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    minkowski.uninstall()


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_the_blocks_of_a_page_run_in_order(page, folder, request):
    """Blocks of one page share their names and a folder. Pages make their data, but for the README."""
    namespace = {"__name__": "__main__"}
    if page.name == "README.md":
        for path in request.getfixturevalue("inputs").iterdir():
            (folder / path.name).symlink_to(path)
        mesh = read_mesh("body.off")
        namespace |= {"vertices": mesh.vertices, "faces": mesh.faces}
    for block in blocks(page.read_text(encoding="utf-8")):
        if block.reason is not None:
            continue
        if block.language == "python":
            # Empty lines before it, so that a traceback has the line of the page.
            code = "\n" * (block.line - 1) + block.code
            exec(compile(code, str(page), "exec"), namespace)
        else:
            for words in commands(block.code):
                run_command(words)


def test_pages_have_blocks_that_run_and_reasons_for_those_that_do_not():
    found = [block for page in PAGES for block in blocks(page.read_text(encoding="utf-8"))]
    assert sum(block.reason is None for block in found) >= 20
    assert all(len(block.reason) > 8 for block in found if block.reason is not None)


def test_a_block_is_found_with_its_line_and_its_reason():
    text = "# A\n\n```python\nx = 1\n```\n\n<!-- not run: needs a GPU -->\n```bash\nsparsefeat a \\\n  b # c\n```\n"
    first, second = blocks(text)
    assert first == Block("python", "x = 1\n", 4, None)
    assert second.reason == "needs a GPU" and second.line == 9
    assert commands(second.code) == [["sparsefeat", "a", "b"]]
