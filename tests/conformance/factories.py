"""What a remote must offer to be put through the conformance suite.

A factory opens one remote over one fresh, empty directory of this machine, which the suite
inspects and changes behind the remote's back to play the other clients. Modules
``directory_factory`` and ``sftp_factory`` beside this one offer
``factories() -> list[Factory]``; a module that is not there is left out.

The adapter's side of the bargain: call ``awayfs.remotes.faults.reach(name)`` between the
steps of each mutation, and ``awayfs.remotes.progress.tick()`` for each chunk moved by
``fetch``, ``digest``, ``stage`` and ``list``.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from awayfs.ports.remote import Remote
from awayfs.remotes import faults

if TYPE_CHECKING:
    from awayfs.remotes.isolated import IsolatedRemote


@dataclass(frozen=True)
class Served:
    """A remote, not yet connected, and the directory on local disk that it serves.

    ``cut_at(n)`` cuts the ``n``-th fault point reached from now on: the call then under way
    ends with ``Unreachable`` (isolated) or ``faults.Cut`` (plain), and a ``connect`` after it
    finds a working server again. ``cut_at(0)`` disarms. The remote may have to be connected
    again after ``cut_at``, which the suite does.
    """

    remote: Remote
    root: bytes
    cut_at: Callable[[int], None]
    puts: bool = False  # whether the suite saves by ``put`` where it can


@dataclass(frozen=True)
class Factory:
    """``open(scratch)`` gives an async context with a ``Served`` below the directory scratch."""

    name: str
    open: Callable[[bytes], AbstractAsyncContextManager[Served]]
    isolated: bool = False
    marks: tuple[pytest.MarkDecorator, ...] = ()


def cut_here(nth: int) -> None:
    """``Served.cut_at`` of an adapter that runs in the test's own process."""
    if nth:
        faults.arm(nth)
    else:
        faults.disarm()


def cut_worker(remote: IsolatedRemote) -> Callable[[int], None]:
    """``Served.cut_at`` of an isolated remote: the next worker is started with the cut.

    From then on workers are forked (``conftest``): to begin Python anew for each cut of each
    operation took most of the time.
    """

    def cut_at(nth: int) -> None:
        remote.command = (sys.executable, "-m", "awayfs.remotes.worker", "--cut-at", str(nth))
        remote.abandon("cut set")

    return cut_at


def all_factories() -> list[Factory]:
    """Every remote that can be tested here."""
    found: list[Factory] = []
    for module in ("directory_factory", "sftp_factory"):
        if importlib.util.find_spec(module):
            found += importlib.import_module(module).factories()
    return found
