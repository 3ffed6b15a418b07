"""``awayfs.errors``: what programs look errno values up in."""

from __future__ import annotations

import errno
import os

import pytest

from awayfs import errors

FIVE = ("EDISCONNECTED", "EDISCONDATA", "EDISCONPERM", "EDISCONFULL", "ECONFLICTED")


def test_both_sets_have_names_numbers_and_texts() -> None:
    for number, symbol in enumerate(FIVE, 501):
        assert getattr(errors, symbol) == number
        assert errors.name(number) == symbol
        assert errors.numbers(symbol) == (number, errors.POSIX[number])
        assert errors.strerror(number) not in ("", os.strerror(number))
    assert len(set(errors.POSIX.values())) == 5
    assert errno.ENOTCONN not in errors.POSIX.values(), "that one means a dead daemon"


def test_other_numbers_are_told_as_ever() -> None:
    assert errors.strerror(errno.ENOENT) == os.strerror(errno.ENOENT)
    assert errors.name(errno.ENOENT) == "ENOENT"
    assert errors.name(499) == "499"


def test_another_symbol_is_refused() -> None:
    with pytest.raises(ValueError, match="EDISCONDATA"):
        errors.numbers("ENOENT")
