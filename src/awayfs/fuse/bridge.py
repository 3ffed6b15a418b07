"""From requests to the volume and back: the table of handlers.

``Bridge.handlers`` is what a ``Session`` serves. Each handler turns one typed request into
calls on the volume and the answer into a reply; none of them decides anything about the
share. The parts: names (``bridge_names``), files (``bridge_files``), extended attributes
(``bridge_xattrs``), ioctls (``bridge_ioctl``) and the volume's own ``.awayfs`` tree
(``bridge_virtual``).
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable
from typing import Any

from awayfs.core.errors import EDISCONFULL, POSIX_ERRNO
from awayfs.fuse import requests as rq
from awayfs.fuse.bridge_bases import after_base
from awayfs.fuse.bridge_files import FileHandlers
from awayfs.fuse.bridge_ioctl import IoctlHandlers
from awayfs.fuse.bridge_names import NameHandlers
from awayfs.fuse.bridge_shared import Shared
from awayfs.fuse.bridge_virtual import VirtualHandlers
from awayfs.fuse.bridge_xattrs import XattrHandlers
from awayfs.fuse.requests import Request
from awayfs.fuse.session import Handler, Reply, Result
from awayfs.volume.base_copies import BaseCopies
from awayfs.volume.virtual_node import VIRTUAL_BASE

_WORTH_TELLING = frozenset({errno.EIO, errno.ESTALE, errno.EDQUOT, errno.EROFS, errno.EACCES})


_CHANGES = frozenset(
    (
        *(rq.Mkdir, rq.Mknod, rq.Symlink, rq.Link, rq.Unlink, rq.Rmdir, rq.Rename, rq.Create),
        *(rq.Setattr, rq.Setxattr, rq.Removexattr, rq.Fallocate, rq.CopyFileRange),
    )
)
"""What waits for the server with ``writes=through``; writes themselves do so by their file."""

_TWO_NODES = frozenset((rq.Rename, rq.Link))


class Bridge:
    """Serves one volume to one kernel."""

    def __init__(self, shared: Shared, *, distinct_errno: bool = False) -> None:
        self._volume = shared.volume
        self._distinct = distinct_errno
        virtual_tree = VirtualHandlers(shared)
        real: dict[type[Request], Handler] = {
            **NameHandlers(shared, virtual_tree.root_entry, virtual_tree.let_go).table(),
            **FileHandlers(shared).table(),
            **XattrHandlers(shared).table(),
            **IoctlHandlers(shared).table(),
        }
        bases = BaseCopies(shared.volume.context)
        real = {kind: after_base(bases, kind, handler) for kind, handler in real.items()}
        virtual = virtual_tree.table()
        self.handlers: dict[type[Request], Handler] = {
            kind: self._routed(kind, self._patient(kind, handler), virtual.get(kind, _read_only))
            for kind, handler in real.items()
        }

    def _patient(self, kind: type[Request], real: Handler) -> Handler:
        """The handler, or one that answers when the server has the change."""
        if kind not in _CHANGES or not self._volume.writes_through:
            return real
        return lambda request: self._through(real(request))

    async def _through(self, result: Result) -> Reply:
        reply = await result if isinstance(result, Awaitable) else result
        try:
            await self._volume.all_sent()
        except asyncio.CancelledError:
            pass  # the change is made and journaled: EINTR would deny it
        assert reply is not None
        return reply

    def _routed(self, kind: type[Request], real: Handler, virtual: Handler) -> Handler:
        """The handler by node, with errors as this mount shows them."""

        def handle(request: Any) -> Result:
            try:
                if request.nodeid >= VIRTUAL_BASE:
                    result = virtual(request)
                else:
                    if kind in _TWO_NODES:
                        _check_other(request)
                    result = real(request)
            except OSError as error:
                raise self._shown(request, error) from error
            if type(result) is bytes or result is None or not isinstance(result, Awaitable):
                return result
            return self._awaited(request, result)

        return handle

    async def _awaited(self, request: Request, result: Awaitable[Reply]) -> Reply:
        try:
            return await result
        except OSError as error:
            raise self._shown(request, error) from error

    def _shown(self, request: Request, error: OSError) -> OSError:
        """The errno that the program sees; what is behind it is kept for ``awayfs why``."""
        code = error.errno or 0
        if code == errno.ENOSPC:  # nothing is changed on the server itself: it is full here
            code = EDISCONFULL
            error = OSError(code, error.strerror)
        ours = request.nodeid >= VIRTUAL_BASE
        if not ours and (code in POSIX_ERRNO or code in _WORTH_TELLING):
            self._volume.note_failure(request.nodeid, getattr(request, "name", b""), error)
        if code in POSIX_ERRNO and not self._distinct:
            return OSError(POSIX_ERRNO[code], error.strerror)
        return error


def _read_only(_request: Request) -> Result:
    raise OSError(errno.EROFS, "nothing in .awayfs can be changed")


def _check_other(request: Any) -> None:
    """A second node in ``.awayfs``: nothing goes in, and what comes out is copied."""
    if isinstance(request, rq.Link):
        if request.target >= VIRTUAL_BASE:
            raise OSError(errno.EXDEV, "what is in .awayfs can only be copied")
    elif request.new_parent >= VIRTUAL_BASE:
        raise OSError(errno.EROFS, "nothing in .awayfs can be changed")
