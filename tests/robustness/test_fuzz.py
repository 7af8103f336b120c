"""A short form of fuzz.py: damaged files of every format are read or refused in one line, never more."""

from __future__ import annotations

import zlib

import pytest
from corpus import READERS, corpus
from fuzz import input_bytes, try_one

INPUTS = 40
_REFUSED_BY_INTENT = {"config.yaml": 1}  # its aliases are there for the mutations


@pytest.mark.parametrize("reader", READERS)
def test_the_corpus_is_read(tmp_path, reader):
    suffix, read = READERS[reader]
    endings = []
    for data in corpus(reader):
        (tmp_path / f"a{suffix}").write_bytes(data)
        endings.append(try_one(read, tmp_path / f"a{suffix}", 60))
    refused = [ending for ending in endings if ending[0] != "read"]
    assert len(refused) == _REFUSED_BY_INTENT.get(reader, 0) and ("bad" not in dict(refused)), (
        endings
    )


@pytest.mark.parametrize("reader", READERS)
def test_damaged_files_are_read_or_refused(tmp_path, reader):
    suffix, read = READERS[reader]
    files = corpus(reader)
    for number in range(INPUTS):
        path = tmp_path / f"a{suffix}"
        path.write_bytes(input_bytes(reader, zlib.crc32(reader.encode()), number, files))
        ending, why = try_one(read, path, 60)
        assert ending in ("read", "refused"), f"input {number}: {why}"


@pytest.mark.parametrize("reader", READERS)
def test_files_cut_anywhere_are_read_or_refused(tmp_path, reader):
    suffix, read = READERS[reader]
    path = tmp_path / f"a{suffix}"
    for data in corpus(reader)[:2]:
        for length in range(0, len(data), max(1, len(data) // 12)):
            path.write_bytes(data[:length])
            ending, why = try_one(read, path, 60)
            assert ending in ("read", "refused"), f"{length} of {len(data)} bytes: {why}"
