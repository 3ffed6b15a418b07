"""Changes of content wait until the base of a large file is kept (``volume.base_copies``)."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

from awayfs.core.types import NodeId
from awayfs.fuse import requests as rq
from awayfs.fuse import wire
from awayfs.fuse.requests import Request
from awayfs.fuse.session import Handler, Reply, Result
from awayfs.volume.base_copies import BaseCopies
from awayfs.volume.context import Context


def after_base(bases: BaseCopies, kind: type[Request], handler: Handler) -> Handler:
    """The handler, or for what changes content one that has the base kept first."""
    node_of = _CHANGED.get(kind)
    if node_of is None:
        return handler

    def handle(request: Any) -> Result:
        node = node_of(bases.context, request)
        wait = bases.before_change(node) if node else None
        return handler(request) if wait is None else _later(handler, request, wait)

    return handle


async def _later(handler: Handler, request: Any, wait: Awaitable[None]) -> Reply:
    await wait
    result = handler(request)
    return await result if isinstance(result, Awaitable) else result


def _opened(context: Context, request: rq.Open) -> NodeId:
    """Cut at once, or written to through a mapping that is not seen (``Files.note_mappable``)."""
    opened = context.opened.get(request.nodeid)
    mapping = request.flags & os.O_ACCMODE == os.O_RDWR
    mapped = opened is not None and opened.passthrough and mapping
    return request.nodeid if request.flags & os.O_TRUNC or mapped else 0


def _created(context: Context, request: rq.Create) -> NodeId:
    if not request.flags & os.O_TRUNC:
        return 0
    return context.store.nodes.child_id(request.nodeid, request.name) or 0


_CHANGED: dict[type[Request], Callable[[Context, Any], NodeId]] = {
    rq.Write: lambda _, request: request.nodeid,
    rq.Fallocate: lambda _, request: request.nodeid,
    rq.CopyFileRange: lambda _, request: request.new_nodeid,
    rq.Setattr: lambda _, request: request.nodeid if request.valid & wire.FATTR_SIZE else 0,
    rq.Open: _opened,
    rq.Create: _created,
}
