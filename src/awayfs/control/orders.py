"""Orders about a server or about everything: files that daemons of later mounts find, too.

    $XDG_STATE_HOME/awayfs/orders/all.json, server-HOST.json

A command writes the file first and tells the daemons then; a daemon that is about to mount reads
them after it can be told. So none is missed by both. An order about one volume is in its store.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

from awayfs.control import paths, volumes
from awayfs.core.orders import Order, Scope, order_of


def read(scope: Scope, server: str = "") -> Order | None:
    """What stands about everything, or about one server; nothing where it cannot be read."""
    return order_of(volumes.read_json(_file(scope, server)))


def write(order: Order | None, scope: Scope, server: str = "") -> None:
    """Replace what stands, durably; None takes it back."""
    paths.ensure_state()
    paths.ensure_private(paths.orders_dir())
    with _alone():
        if order is not None:
            volumes.write_json(_file(scope, server), order.as_dict())
            return
        try:
            os.unlink(_file(scope, server))
        except FileNotFoundError:
            pass


def _file(scope: Scope, server: str) -> str:
    name = str(scope) if scope is Scope.ALL else f"server-{quote(server, safe='')}"
    return os.path.join(paths.orders_dir(), name + ".json")


@contextmanager
def _alone() -> Iterator[None]:
    """Two commands at a time would write into the same staged file."""
    directory = os.open(paths.orders_dir(), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(directory, fcntl.LOCK_EX)
        yield
    finally:
        os.close(directory)
