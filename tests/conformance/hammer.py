"""Another client of the server, as a process of its own: ``hammer.py MODE PATH SECONDS``.

It writes revision after revision to PATH, each with a content of its own, and prints one line
``NEW displaced`` for each: its content, and the content that it put an end to (``-`` if the
name was vacant, ``?`` if that cannot be told). Modes:

    rename   saves by exchanging a new file in, so that it knows what came out
    inplace  opens the file, reads it and overwrites it
    create   creates the file anew where it is missing, exclusively
"""

from __future__ import annotations

import ctypes
import os
import random
import sys
import time

RENAME_EXCHANGE = 2
AT_FDCWD = -100
WIDTH = 16

_libc = ctypes.CDLL(None, use_errno=True)


def by_rename(path: bytes, new: bytes) -> str | None:
    """Exchange a new file in."""
    beside = path + b".hammer"
    with open(beside, "wb") as file:
        file.write(new)
    if _libc.renameat2(AT_FDCWD, beside, AT_FDCWD, path, RENAME_EXCHANGE):
        os.unlink(beside)
        return None
    with open(beside, "rb") as file:
        out = file.read().decode()
    os.unlink(beside)
    return out


def in_place(path: bytes, new: bytes) -> str | None:
    """Overwrite what is there, in the very file."""
    try:
        fd = os.open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    out = os.pread(fd, 100, 0).decode()
    os.pwrite(fd, new, 0)
    os.close(fd)
    return out


def create(path: bytes, new: bytes) -> str | None:
    """Create the file where there is none."""
    beside = path + b".hammer"
    with open(beside, "wb") as file:
        file.write(new)
    try:
        os.link(beside, path)
        return "-"
    except FileExistsError:
        return None
    finally:
        os.unlink(beside)


PAUSES = {0.002: 80, 0.03: 14, 0.5: 6}
"""Seconds at most, and how often: in a hurry, or long enough for a slow remote to win a round."""

MODES = {"rename": by_rename, "inplace": in_place, "create": create}


def main() -> None:
    """Write until the time is over."""
    mode, path, seconds = MODES[sys.argv[1]], os.fsencode(sys.argv[2]), float(sys.argv[3])
    random.seed(os.getpid())
    end, number = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        new = f"w{number:0{WIDTH - 1}d}"
        displaced = mode(path, new.encode())
        if displaced is not None:
            print(new, displaced)
            number += 1
        time.sleep(random.random() * random.choices(list(PAUSES), list(PAUSES.values()))[0])


if __name__ == "__main__":
    main()
