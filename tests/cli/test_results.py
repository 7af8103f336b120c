"""Tables in documents are those of results/, and a result can be measured again."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pytest

from sparsefeat.cli.main import main
from sparsefeat.errors import InputError
from sparsefeat.io.results import read_result, write_result
from sparsefeat.results import compare, documents, fill, find_result, list_results
from sparsefeat.results.store import command_words

ROOT = Path(__file__).resolve().parents[2]
COMMAND = ["sparsefeat", "evaluate", "matching", "--checkpoint", "sparsefeat/net-v1", "--seed", "3"]


def scene(fmr: float, pairs: int = 10) -> dict:
    return {
        "FMR": fmr, "IR": 0.25, "FMR_mutual": 1.0, "IR_mutual": 0.5, "RR": None, "n_pairs": pairs,
    }  # fmt: skip


def matching(fmr: float = 0.75) -> dict:
    means = scene(fmr, 20) | {"FMR_sd": 0.1, "IR_sd": 0.0, "FMR_mutual_sd": 0.0, "IR_mutual_sd": 0}
    scenes = {"7-scenes-redkitchen": scene(fmr - 0.1), "elsewhere": scene(fmr + 0.1)}
    return {**means, "RR_sd": None, "scenes": scenes, "baselines": {}}


@pytest.fixture
def checkout(tmp_path, monkeypatch) -> Path:
    """A folder with one result and a README that shows it."""
    monkeypatch.chdir(tmp_path)
    write_result("matching", "net-v1", matching(), COMMAND, [3], cpu_seconds=30)
    block = "<!-- results: scenes matching/net-v1 -->\n<!-- /results -->"
    (tmp_path / "README.md").write_text(f"# Title\n\nBefore.\n\n{block}\n\nAfter.\n")
    return tmp_path


# ---- rendering


def test_a_block_becomes_the_table_of_its_result(checkout):
    assert main(["results", "render"]) == 0
    text = (checkout / "README.md").read_text()
    assert "| redkitchen | 10 | 0.650 | 0.250 |" in text
    assert "| mean ± sd | 20 | 0.750 ± 0.100 | 0.250 ± 0.000 |" in text
    assert text.startswith("# Title\n\nBefore.\n") and text.endswith("\nAfter.\n")


def test_what_begins_a_block_may_be_broken_into_lines(checkout):
    one = "<!-- results: scenes matching/net-v1 columns=FMR -->\n<!-- /results -->\n"
    broken = one.replace(" columns", "\n  columns")
    assert fill(one, checkout).partition("-->")[2] == fill(broken, checkout).partition("-->")[2]
    assert fill(fill(broken, checkout), checkout) == fill(broken, checkout)
    with pytest.raises(InputError, match="text:3: a block of results is not closed"):
        fill("a\n\n<!-- results: scenes\n  matching/net-v1 -->\nb", checkout)


def test_rendering_twice_changes_nothing(checkout, capsys):
    assert main(["results", "render"]) == 0
    once = (checkout / "README.md").read_bytes()
    assert main(["results", "render"]) == 0
    assert (checkout / "README.md").read_bytes() == once
    assert capsys.readouterr().out == "README.md\n", "only what changed is named"


def test_check_names_each_file_that_differs_and_changes_none(checkout, capsys):
    (checkout / "docs").mkdir()
    (checkout / "docs/same.md").write_text("# No block\n")
    before = (checkout / "README.md").read_bytes()
    assert main(["results", "render", "--check"]) == 2
    assert capsys.readouterr().err == (
        "README.md: differs from results/; run: sparsefeat results render\n"
    )
    assert (checkout / "README.md").read_bytes() == before
    assert main(["results", "render"]) == 0
    assert main(["results", "render", "--check"]) == 0
    write_result("matching", "net-v1", matching(0.5), COMMAND, [3])
    assert main(["results", "render", "--check"]) == 2, "a new result makes documents old"


@pytest.mark.parametrize(
    ("block", "message"),
    [
        ("<!-- results: scenes matching/net-v1 -->", "README.md:1: a block of results is not clos"),
        (
            "<!-- results: seens matching/net-v1 -->\n<!-- /results -->",
            "README.md:1: expected a vi",
        ),
        ("<!-- results: scenes matching/net-v2 -->\n<!-- /results -->", "matching/net-v2: no such"),
        ("<!-- results: scenes -->\n<!-- /results -->", "expected TASK/NAME"),
        (
            "<!-- results: scenes matching/net-v1 colour=red -->\n<!-- /results -->",
            "scenes has no option colour",
        ),
        (
            "<!-- results: scenes matching/net-v1 columns=FMR,AP -->\n<!-- /results -->",
            "expected some of FMR, IR, FMR_mutual, IR_mutual, RR; got AP",
        ),
        (
            "<!-- results: kills matching/net-v1 -->\n<!-- /results -->",
            "not a result that kills can show",
        ),
    ],
)
def test_a_wrong_block_is_one_line_with_its_place(block, message, checkout, capsys):
    (checkout / "README.md").write_text(block + "\n")
    assert main(["results", "render"]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_blocks_inside_code_fences_are_examples(checkout):
    text = "````md\n```\n<!-- results: nothing -->\n```\n````\n\n~~~\n<!-- results: x -->\n~~~\n"
    assert fill(text, checkout) == text


def test_outside_of_a_checkout_it_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for words in (["render"], ["list"], ["check", "net-v1"]):
        assert main(["results", *words]) == 2
        assert capsys.readouterr().err == (
            "results: no such folder; expected to be run in a checkout\n"
        )


def test_the_best_of_a_regime_is_bold_and_seeds_are_averaged(checkout):
    keys = {"labels": "parts", "learned": "clean", "damage": "clean", "shots": 5}
    records = [
        keys | {"method": method, "seed": seed, "accuracy": accuracy}
        for method, accuracies in {"ours": (0.5, 0.7), "hks": (0.9, 0.9)}.items()
        for seed, accuracy in enumerate(accuracies)
    ]
    config = {
        "labels": {"parts": None}, "networks": {"ours": "sparsefeat/net-v1"}, "hand_made": ["hks"],
        "joined": {}, "damages": ["clean"],
    }  # fmt: skip
    numbers = {"config": config, "records": records}
    write_result("study", "small", numbers, ["sparsefeat", "transfer", "x.yaml"], [0, 1])
    text = fill("<!-- results: regimes study/small -->\n<!-- /results -->\n", checkout)
    assert "| test shapes | `net-v1` | HKS |" in text
    assert "| clean | 0.600 | **0.900** |" in text
    block = "<!-- results: regimes study/small released=ours:net-v2 -->\n<!-- /results -->\n"
    assert "| test shapes | `net-v2` | HKS |" in fill(block, checkout)


# ---- the documents of this repository


def test_the_documents_show_the_results():
    for path in documents(ROOT):
        text = path.read_text(encoding="utf-8")
        assert fill(text, ROOT, str(path)) == text, f"{path}: run: sparsefeat results render"


def test_every_result_is_shown_somewhere_with_its_origin():
    shown = {
        word
        for path in documents(ROOT)
        for block in re.findall(
            r"<!-- results: origin ([^<>]*) -->", path.read_text(encoding="utf-8")
        )
        for word in block.split()
    }
    assert set(list_results(ROOT)) == shown


def test_results_name_no_place_of_the_machine_in_what_runs_again():
    for name, path in list_results(ROOT).items():
        words = command_words(read_result(path))
        assert not [word for word in words if "..." in word], name


PAGES = [path for room in ("results", "notes") for path in (ROOT / "docs" / room).glob("*.md")]


@pytest.mark.parametrize("path", sorted(PAGES), ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_page_has_one_title_and_no_html_but_markers(path):
    text = re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.S)
    assert len(re.findall(r"^# ", text, flags=re.M)) == 1
    text = re.sub(r"^<!-- (results: [^<>]*|/results) -->$", "", text, flags=re.M)
    assert not [line for line in text.splitlines() if line.startswith("<")]


# ---- measuring again


def test_numbers_within_the_tolerance_agree(checkout):
    published = find_result(checkout, "net-v1")
    assert all(comparison.agrees for comparison in compare(published, matching()))
    differing = [c.name for c in compare(published, matching(0.72)) if not c.agrees]
    assert differing == ["FMR"], "3 points of a mean; one pair of ten is 10 points of a scene"
    fewer = [c for c in compare(published, matching() | {"n_pairs": 19}) if not c.agrees]
    assert [c.line() for c in fewer] == ["n_pairs: published 20, now 19, exact: DIFFERS"]


def test_a_number_that_is_absent_differs(checkout):
    numbers = matching()
    del numbers["scenes"]["elsewhere"]
    differing = [c for c in compare(find_result(checkout, "net-v1"), numbers) if not c.agrees]
    assert len(differing) == 4 and all("now absent" in c.line() for c in differing)


def test_check_runs_the_command_and_compares(checkout, monkeypatch, capsys):
    ran = []

    def run(command, env, stdout):
        ran.append((command, env["OMP_NUM_THREADS"]))
        target = Path(command[command.index("--json") + 1])
        target.write_text(json.dumps(matching(0.75 if len(ran) == 1 else 0.5)))
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr("sparsefeat.cli.results.subprocess.run", run)
    assert main(["results", "check", "net-v1"]) == 0
    command, threads = ran[0]
    assert command[:-1] == [sys.executable, "-m", *COMMAND, "--json"]
    assert threads == str(find_result(checkout, "net-v1")["machine"]["threads"])
    out = capsys.readouterr().out.splitlines()
    assert out[-1] == "matching/net-v1: 13 of 13 numbers agree"
    assert out[1] == "FMR: published 0.75, now 0.75, tolerance 0.02: agrees"
    assert main(["results", "check", "matching/net-v1"]) == 2
    assert "FMR: published 0.75, now 0.5, tolerance 0.02: DIFFERS" in capsys.readouterr().out


@pytest.mark.parametrize(("seconds", "line"), [(601, "took 10 minutes"), (None, "has no recorded")])
def test_long_results_are_measured_again_only_on_demand(
    seconds, line, checkout, monkeypatch, capsys
):
    monkeypatch.setattr("sparsefeat.cli.results.measure_again", lambda *args: matching())
    write_result("matching", "net-v1", matching(), COMMAND, [3], cpu_seconds=seconds)
    assert main(["results", "check", "net-v1"]) == 2
    error = capsys.readouterr().err
    assert line in error and "--long" in error and error.count("\n") == 1
    assert main(["results", "check", "net-v1", "--long"]) == 0


def test_what_cannot_be_compared_is_not_measured(checkout, monkeypatch, capsys):
    def never(*args):
        raise AssertionError("measured all the same")

    monkeypatch.setattr("sparsefeat.cli.results.measure_again", never)
    write_result("axes", "loss", {"records": []}, COMMAND, [3], cpu_seconds=1)
    assert main(["results", "check", "axes/loss"]) == 2
    assert "axes/loss: cannot be compared, expected a result of matching" in capsys.readouterr().err


def test_a_command_of_another_machine_is_refused(checkout, capsys):
    command = [*COMMAND, "--data", "/home/me/scenes"]
    write_result("matching", "net-v1", matching(), command, [3], cpu_seconds=1)
    assert main(["results", "check", "net-v1"]) == 2
    assert "names a place on another machine: .../scenes" in capsys.readouterr().err


def test_a_command_that_fails_is_one_line(checkout, capfd):
    write_result("matching", "net-v1", matching(), ["sparsefeat", "evaluate"], [], cpu_seconds=1)
    assert main(["results", "check", "net-v1"]) == 2
    assert capfd.readouterr().err.splitlines()[-1] == (
        "matching/net-v1: its command ended with exit code 2: sparsefeat evaluate"
    )


def test_where_output_goes_is_no_part_of_a_command(checkout):
    words = [*COMMAND, "--json", "a.json", "--resume", "--result=x", "output=b", "--output", "c"]
    words += ["--plots", "d", "--plot", "e.png", "--html", "f.html"]
    write_result("matching", "net-v1", matching(), words, [3])
    assert command_words(find_result(checkout, "net-v1")) == COMMAND


def test_a_name_that_two_tasks_have_needs_its_task(checkout):
    write_result("shapes", "net-v1", {}, COMMAND, [])
    with pytest.raises(InputError, match="more than one result of this name: matching/net-v1, sh"):
        find_result(checkout, "net-v1")
    assert find_result(checkout, "results/matching/net-v1.json")["task"] == "matching"


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"task": 1}', "[" * 100000])
def test_another_file_is_no_result(text, tmp_path):
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=r"a\.json: expected a result"):
        read_result(tmp_path / "a.json")


def test_the_list_says_what_there_is(checkout, capsys):
    assert main(["results", "list"]) == 0
    assert re.fullmatch(
        r"matching/net-v1 +\d{4}-\d\d-\d\d +\S+ +0\.5 min\n", capsys.readouterr().out
    )
