"""gt.log and gt.info: any separators are read, what is cut off or wrong is named with its line."""

from __future__ import annotations

import numpy as np
import pytest

from sparsefeat.io.gtlog import LogBlock, read_info, read_log, write_info, write_log


def rigid(seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rotation, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * np.sign(np.linalg.det(rotation))
    matrix[:3, 3] = rng.standard_normal(3)
    return matrix


def test_what_is_written_is_read_back_bit_for_bit(tmp_path):
    poses = [LogBlock(0, 1, 9, rigid(1)), LogBlock(3, 8, 9, rigid(2))]
    write_log(tmp_path / "gt.log", poses)
    for read, given in zip(read_log(tmp_path / "gt.log"), poses, strict=True):
        assert read[:3] == given[:3] and np.array_equal(read.matrix, given.matrix)
    write_info(tmp_path / "gt.info", [(0, 1, 9, np.diag(np.arange(1.0, 7) / 3))])
    assert np.array_equal(read_info(tmp_path / "gt.info")[0].matrix, np.diag(np.arange(1.0, 7) / 3))


def test_separators_and_blank_lines_do_not_matter(tmp_path):
    rows = ["1 0 0 0.5", "0\t1 \t0\t0\t", " 0   0 1 0 ", "0 0 0 1"]
    (tmp_path / "gt.log").write_text(
        "0\t 7\t 60\t\n" + "\n".join(rows) + "\n\n1 2 60\r\n" + "\r\n".join(rows)
    )
    blocks = read_log(tmp_path / "gt.log")
    assert [block[:3] for block in blocks] == [(0, 7, 60), (1, 2, 60)]
    assert [block.line for block in blocks] == [1, 7] and blocks[1].matrix[0, 3] == 0.5


@pytest.mark.parametrize(
    ("cut", "said"),
    [
        (
            lambda lines: lines[:8],
            "line 8: the file ends inside block '1 2 4', after 2 of 4 matrix rows",
        ),
        (
            lambda lines: lines[:6],
            "line 6: the file ends inside block '1 2 4', after 0 of 4 matrix rows",
        ),
        (
            lambda lines: [*lines[:8], "0.1 0.2"],
            "line 9: expected a matrix row of 4 numbers in block '1 2 4', got '0.1 0.2'",
        ),
        (
            lambda lines: [*lines[:5], "1 2"],
            "line 6: expected a block header 'i j n' of three whole numbers, got '1 2'",
        ),
        (
            lambda lines: lines[:2] + lines[3:],
            "line 5: expected a matrix row of 4 numbers in block '0 1 4', got '1 2 4'",
        ),
        (lambda lines: lines[1:], "line 1: expected a block header"),
        (lambda lines: ["0 1.5 4", *lines[1:]], "line 1: expected a block header"),
        (lambda lines: [lines[0], "1 0 0 nan", *lines[2:]], "line 2: NaN or infinity"),
        (
            lambda lines: [lines[0], "1 0 0 x", *lines[2:]],
            "line 2: expected a matrix row of 4 numbers",
        ),
        (
            lambda lines: [lines[0], "2 0 0 0", *lines[2:]],
            "line 2: the matrix of block '0 1 4' is not a rigid motion",
        ),
        (lambda lines: [lines[0], "-1 0 0 0", *lines[2:]], "is a reflection"),
        (lambda lines: [*lines[:4], "0 0 0 2"], "its last row is"),
        (lambda lines: [], "the file is empty"),
    ],
)
def test_a_broken_log_says_which_line(tmp_path, cut, said):
    rows = ["1 0 0 0", "0 1 0 0", "0 0 1 0", "0 0 0 1"]
    (tmp_path / "gt.log").write_text("\n".join(cut(["0 1 4", *rows, "1 2 4", *rows])))
    with pytest.raises(ValueError) as error:
        read_log(tmp_path / "gt.log")
    assert said in str(error.value) and "gt.log" in str(error.value)


def test_broken_information_and_files_are_named(tmp_path):
    write_info(tmp_path / "gt.info", [(0, 1, 9, np.eye(6))])
    (tmp_path / "zero.info").write_text((tmp_path / "gt.info").read_text().replace(" 1.0", " 0.0"))
    with pytest.raises(
        ValueError, match="zero.info, line 2: .* expected the number of corresponding points"
    ):
        read_info(tmp_path / "zero.info")
    with pytest.raises(ValueError, match="line 2: expected a matrix row of 4 numbers"):
        read_log(tmp_path / "gt.info")
    with pytest.raises(ValueError, match="absent.log: cannot be read"):
        read_log(tmp_path / "absent.log")
    (tmp_path / "binary.log").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match="not a text file"):
        read_log(tmp_path / "binary.log")


def test_what_cannot_be_read_again_is_not_written(tmp_path):
    for matrix, said in [
        (np.eye(3), "shape"),
        (np.eye(4) * 2, "rigid"),
        (np.full((4, 4), np.nan), "NaN"),
    ]:
        with pytest.raises(ValueError, match=said):
            write_log(tmp_path / "gt.log", [(0, 1, 2, matrix)])
    assert not list(tmp_path.iterdir())
