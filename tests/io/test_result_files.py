"""Published numbers: complete, without a trace of where they were measured."""

from __future__ import annotations

import json
import socket
import subprocess
from pathlib import Path

import pytest

import sparsefeat
from sparsefeat.errors import InputError
from sparsefeat.io.results import _commit, write_result

ROOT = Path(__file__).resolve().parents[2]


def test_a_result_says_what_it_takes_to_measure_it_again(tmp_path):
    command = [
        "sparsefeat",
        "evaluate",
        "matching",
        "--data",
        "/home/me/my data/scenes",
        "--seed",
        "3",
    ]
    path = write_result("matching", "rooms-5cm-v1", {"FMR": 0.5}, command, [3], tmp_path)
    assert path == tmp_path / "matching" / "rooms-5cm-v1.json"
    result = json.loads(path.read_text())
    assert result["numbers"] == {"FMR": 0.5} and result["seeds"] == [3]
    assert result["command"] == "sparsefeat evaluate matching --data .../scenes --seed 3"
    assert result["versions"].keys() == {"sparsefeat", "python", "torch", "numpy"}
    assert result["versions"]["sparsefeat"] == sparsefeat.__version__
    assert result["machine"].keys() == {"processor", "architecture", "threads", "gpu"}
    assert result["date"].endswith("+00:00")
    if (ROOT / ".git").exists():
        head = subprocess.run(
            ["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True
        ).stdout.strip()
        assert result["commit"] == head and isinstance(result["modified"], bool)
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no temporary file is left"


@pytest.mark.parametrize(
    ("text", "published"),
    [
        ("/home/me/data/scene", ".../scene"),
        ("data.root=/home/me/data/scene", "data.root=.../scene"),
        ("/home/me/my data/scene", ".../scene"),
        (r"C:\Users\me\scene.ply", ".../scene.ply"),
        ('File "/home/me/sparsefeat/io/ply.py", line 3', 'File ".../ply.py", line 3'),
        ("data/scene", "data/scene"),
        ("https://example.org/a/b", "https://example.org/a/b"),
        ("3 km/h, 1/2", "3 km/h, 1/2"),
        ("ResUNetBN2C", "ResUNetBN2C"),
    ],
)
def test_absolute_paths_are_cut(text, published, tmp_path):
    path = write_result(
        "a", "b", {"list": [{"key": text}], "path": Path("/x/y/z")}, [text], [], tmp_path
    )
    result = json.loads(path.read_text())
    assert result["numbers"] == {"list": [{"key": published}], "path": ".../z"}
    assert "/home/" not in path.read_text() and "Users" not in path.read_text()


def test_the_host_is_not_named(tmp_path):
    text = write_result("a", "b", {}, ["sparsefeat"], [], tmp_path).read_text()
    assert f'"{socket.gethostname()}"' not in text


@pytest.mark.parametrize("name", ["", "../a", "a/b", ".a", "a b", "a\n", "-a"])
def test_a_name_cannot_leave_the_folder(name, tmp_path):
    with pytest.raises(InputError, match="expected letters, digits"):
        write_result("matching", name, {}, [], [], tmp_path)
    with pytest.raises(InputError, match="expected letters, digits"):
        write_result(name, "a", {}, [], [], tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "matching").write_text("a file")
    with pytest.raises(InputError, match="matching"):
        write_result("matching", "a", {}, [], [], tmp_path)


def test_results_that_were_written_before_are_no_change_of_what_is_measured(tmp_path):
    def git(*words):
        who = "-c", "user.name=a", "-c", "user.email=a@b"
        subprocess.run(["git", "-C", tmp_path, *who, *words], check=True, capture_output=True)

    (tmp_path / "results").mkdir()
    code, result = tmp_path / "code.py", tmp_path / "results" / "a.json"
    for file in (code, result):
        file.write_text("1")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    result.write_text("2")
    assert _commit(tmp_path)["modified"] is False
    code.write_text("2")
    assert _commit(tmp_path)["modified"] is True
