"""What every error of a user has in common."""

from __future__ import annotations

import pickle

from sparsefeat.errors import InputError, MissingExtraError


def test_a_message_is_one_printable_line_whatever_a_file_calls_its_parts():
    error = InputError("a.pth: unexpected no\nbn.weight\x11, é")
    assert str(error) == "a.pth: unexpected no; bn.weight\\x11, é"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(MissingExtraError("no\ttorch")) == "no\\ttorch"


def test_the_middle_of_an_overlong_message_is_left_out():
    text = str(InputError("begin " + "x" * 9000 + " end"))
    assert len(text) < 1600 and text.startswith("begin") and text.endswith("x end")
