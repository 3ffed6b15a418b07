"""Named points at which a test may cut an operation off.

An adapter calls ``reach("replace.swapped")`` between two steps that are not one step for the
server. In production nothing is armed and the call does nothing. A test arms the *n*-th point
reached from now on, without having to know the names, so that a loop over *n* visits every
cut there is; ``reached`` tells which one it was.

In a worker process the cut is a SIGKILL of the process itself (``--cut-at N`` of
``awayfs.remotes.worker``). In the test's own process it is ``Cut``, a ``BaseException`` that
no ``except Exception`` of an adapter can tidy up after.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import NoReturn

reached: list[str] = []
"""Names of the points passed since ``arm``, the last one being the cut; for messages."""

_lock = threading.Lock()
_left: int | None = None
_cut: Callable[[str], NoReturn] | None = None


class Cut(BaseException):
    """The operation was cut off here."""


def arm(nth: int, kill: bool = False) -> None:
    """Cut at the ``nth`` point (from 1) reached from now on, once."""
    global _left, _cut
    with _lock:
        reached.clear()
        _left, _cut = nth, _die if kill else _raise


def disarm() -> None:
    """Let every point pass again."""
    global _left, _cut
    with _lock:
        _left = _cut = None


def reach(name: str) -> None:
    """Pass the point ``name``, or be cut off there."""
    if _cut is None:
        return
    _count(name)


def _count(name: str) -> None:
    global _left, _cut
    with _lock:
        if _left is None or _cut is None:
            return
        reached.append(name)
        _left -= 1
        if _left > 0:
            return
        cut, _left, _cut = _cut, None, None
    cut(name)


def _raise(name: str) -> NoReturn:
    raise Cut(name)


def _die(name: str) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise Cut(name)
