"""Inputs are found in linked folders too, each once, and links that lead back end."""

from __future__ import annotations

from pathlib import Path

import pytest

from sparsefeat.extract.files import find_inputs


def found(inputs, output: Path) -> dict[str, str]:
    def fail(path, error):
        raise AssertionError(f"{path}: {error}")

    return {str(path): str(name) for path, name in find_inputs(inputs, output, fail).items()}


def touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("0 0 0\n")


def test_files_in_linked_folders_are_found_under_the_name_of_the_link(tmp_path):
    touch(tmp_path / "disk" / "hall" / "a.xyz", tmp_path / "scans" / "b.xyz")
    (tmp_path / "scans" / "linked").symlink_to(tmp_path / "disk")
    names = found([tmp_path / "scans"], tmp_path / "out")
    assert set(names.values()) == {"b", "linked/hall/a"}


def test_a_file_that_is_also_reached_by_a_link_is_found_once_in_its_own_folder(tmp_path):
    touch(tmp_path / "scans" / "z" / "a.xyz")
    (tmp_path / "scans" / "b").symlink_to(tmp_path / "scans" / "z")
    (tmp_path / "scans" / "c.xyz").symlink_to(tmp_path / "scans" / "z" / "a.xyz")
    names = found([tmp_path / "scans"], tmp_path / "out")
    assert len(names) == 1


@pytest.mark.parametrize("target", [".", "..", "scans", "../scans/deep", "back"])
def test_links_that_lead_back_end(tmp_path, target):
    touch(tmp_path / "scans" / "deep" / "a.xyz", tmp_path / "elsewhere" / "b.xyz")
    (tmp_path / "scans" / "deep" / "back").symlink_to(target)
    assert set(found([tmp_path / "scans"], tmp_path / "out").values()) == {"deep/a"}


def test_a_linked_folder_may_be_an_input_itself(tmp_path):
    touch(tmp_path / "disk" / "a.xyz")
    (tmp_path / "scans").symlink_to(tmp_path / "disk")
    assert set(found([tmp_path / "scans"], tmp_path / "out").values()) == {"a"}
