"""Cached content that may be of another revision than the one last seen on the server.

Where a token is too weak to tell, the content here is compared with the server's by digest
(docs/adr/0005) before anybody may trust it again.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Callable

from awayfs.core.types import Entry, NodeId
from awayfs.store.server import ServerNode
from awayfs.volume.adopt import Adopter
from awayfs.volume.context import Context

CHUNK = 1 << 20
SMALL = 64 << 10


def stands_for(base: ServerNode, now: ServerNode) -> bool:
    """Whether what was read while a file was seen as ``base`` may stand for ``now``.

    A weak token that is strong by now proves nothing of what was read before (``core.diff``).
    """
    return now.token == base.token and (now.weak or not base.weak)


def digest_of_file(path: str) -> bytes:
    """BLAKE2b-256 of a local file; blocking."""
    digest = hashlib.blake2b(digest_size=32)
    with open(path, "rb", buffering=0) as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.digest()


async def digest_soon(path: str, size: int, fd: int | None = None) -> bytes:
    """``digest_of_file`` of a file of about ``size`` bytes, without keeping the event loop.

    What is small is read sooner than a thread would begin with it; ``fd`` is the file, if open.
    """
    if fd is not None and size < SMALL:
        content = os.pread(fd, SMALL, 0)
        if len(content) < SMALL:
            return hashlib.blake2b(content, digest_size=32).digest()
    if size <= SMALL:
        return digest_of_file(path)
    return await asyncio.get_running_loop().run_in_executor(None, digest_of_file, path)


class Suspects:
    """Tells what is suspect, and finds out. ``adopt_entry`` takes over a newer revision."""

    def __init__(
        self, context: Context, adopter: Adopter, adopt_entry: Callable[[NodeId, Entry], None]
    ) -> None:
        self._context = context
        self._store = context.store
        self._adopter = adopter
        self._adopt_entry = adopt_entry

    def drop(self, node: NodeId) -> None:
        """What is cached of a clean file is of another revision than the one last seen."""
        base = self._store.server.get(node)
        if base is not None:
            self._drop(node, base)

    def _drop(self, node: NodeId, seen: ServerNode) -> None:
        """Other content than before, and so another time, be it by its fraction alone."""
        with self._store.transaction():
            self._store.nodes.update(node, mtime_ns=seen.mtime_ns)
            self._adopter.drop_content(node, seen.size, seen.token)

    def is_suspect(self, node: NodeId) -> bool:
        """Whether cached content may belong to another revision than the one last seen."""
        content = self._store.content
        if self._store.journal.has_store(node) or not content.ranges(node):
            return False
        if not self._store.nodes.names(node):
            return False  # it is whose it is open for
        seen = self._store.server.get(node)
        return seen is not None and content.token(node) != seen.token

    async def verify(self, node: NodeId) -> None:
        """Find out whether suspect content is the server's, and drop it if not.

        Raises ``RemoteError`` when the server cannot be asked; the content then stays suspect.
        """
        content = self._store.content
        base = self._store.server.get(node)
        path = self._store.server.path(node)
        if base is None or path is None:
            return
        if not content.covers(node, 0, base.size):
            self._drop(node, base)
            return
        remote = await self._context.link.call(lambda server: server.digest(path))
        local_path = content.fd_path(node)
        loop = asyncio.get_running_loop()
        try:
            local = await loop.run_in_executor(None, digest_of_file, local_path)
        except FileNotFoundError:
            return  # culled meanwhile
        now = self._store.server.get(node)
        if now is None or self._store.journal.has_store(node) or not stands_for(base, now):
            return
        if not content.covers(node, 0, now.size) or content.fd_path(node) != local_path:
            return  # culled meanwhile, and perhaps fetched again
        if remote.entry.token != now.token:
            self._adopt_entry(node, remote.entry)
        elif remote.blake2b == local:
            with self._store.transaction():
                content.set_token(node, now.token)
                self._store.server.set_digest(node, local)
        else:
            self._drop(node, now)
