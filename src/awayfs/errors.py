"""The errors of disconnected operation for programs: both sets of numbers, names and texts.

    from awayfs import errors

    try:
        open("share/report.odt").read()
    except OSError as error:
        if error.errno in errors.numbers("EDISCONDATA"):     # 502, and ENODATA (errno=posix)
            print(errors.strerror(error.errno))

With ``-o errno=distinct`` a mount answers the numbers of its own, 501 to 505. With
``errno=posix``, the default, it answers the POSIX number in ``POSIX``, which can mean other
things as well: ``awayfs why PATH`` tells them apart.
"""

from __future__ import annotations

import errno
import os

from awayfs.core.errors import (
    DISCONNECTED_NAME,
    DISCONNECTED_TEXT,
    ECONFLICTED,
    EDISCONDATA,
    EDISCONFULL,
    EDISCONNECTED,
    EDISCONPERM,
)
from awayfs.core.errors import POSIX_ERRNO as POSIX

__all__ = [
    "ECONFLICTED",
    "EDISCONDATA",
    "EDISCONFULL",
    "EDISCONNECTED",
    "EDISCONPERM",
    "POSIX",
    "name",
    "numbers",
    "strerror",
]

_BY_NAME = {text: code for code, text in DISCONNECTED_NAME.items()}


def strerror(code: int) -> str:
    """What an errno means, those of awayfs included."""
    return DISCONNECTED_TEXT.get(code) or os.strerror(code)


def name(code: int) -> str:
    """The symbol of an errno, those of awayfs included; the number for one without a symbol."""
    return DISCONNECTED_NAME.get(code) or errno.errorcode.get(code) or str(code)


def numbers(symbol: str) -> tuple[int, int]:
    """What a mount may answer for ``EDISCONDATA`` and so on: distinct and posix.

    Raises ValueError for another symbol.
    """
    if symbol not in _BY_NAME:
        raise ValueError(f"{symbol}: not an error of awayfs; there are {', '.join(_BY_NAME)}")
    code = _BY_NAME[symbol]
    return code, POSIX[code]
