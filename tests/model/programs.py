"""What programs do on a client.

What the kernel and the mount layer do before a change (look names up, open, renew what is
stale) is done here in the same order.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from awayfs.core.types import ROOT, Attributes, Kind, NodeId
from awayfs.store.nodes import Node
from awayfs.volume.adopt import SUSPECT
from awayfs.volume.changes import RENAME_EXCHANGE
from awayfs.volume.files import FileHandle
from tests.model.daemon import Died
from tests.model.ledger import SIZE, tokens_in
from tests.model.view import View


class Programs(View):
    """Each is a method by the name of the operation."""

    async def act(self, op: tuple[Any, ...]) -> None:
        """One operation; ``OSError`` where it makes no sense just then."""
        await getattr(self, f"_{op[0]}")(*op[1:])

    @contextmanager
    def _taking(self, tokens: Iterable[bytes], why: str) -> Iterator[None]:
        """Who sees these takes them away; one who died doing it may have done it."""
        taken = set(tokens) if self.left is None else set()
        try:
            yield
        except Died:
            self.ledger.give_up(taken, f"{self.name}: {why}, and died")
            raise
        self.ledger.give_up(taken, f"{self.name}: {why}")

    async def _place(self, path: str) -> tuple[NodeId, bytes]:
        *above, name = os.fsencode(path).split(b"/")
        node = ROOT
        for part in above:
            found = await self._looked_up(node, part)
            if found is None:
                raise OSError(errno.ENOENT, "no such directory")
            if found.kind is not Kind.DIRECTORY:
                raise OSError(errno.ENOTDIR, "no directory")
            node = found.id
        return node, name

    async def _looked_up(self, parent: NodeId, name: bytes) -> Node | None:
        try:
            found = self.volume.tree.lookup(parent, name)
            return found if isinstance(found, Node) else await found
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return None

    async def _there(self, path: str) -> Node:
        found = await self._looked_up(*await self._place(path))
        if found is None:
            raise OSError(errno.ENOENT, "no such file")
        return found

    async def _absent(self, path: str) -> tuple[NodeId, bytes]:
        place = await self._place(path)
        if await self._looked_up(*place) is not None:
            raise OSError(errno.EEXIST, "exists")
        return place

    async def _opened(self, node: Node, *, truncate: bool = False) -> FileHandle:
        if node.kind is not Kind.FILE:
            raise OSError(errno.EISDIR, "no file")
        wait = self.volume.tree.freshen(node.id)
        if wait is not None:
            await wait
        current = self._now(node)
        if truncate:
            with self._taking(self.tokens(node.id), "open with O_TRUNC"):
                self.volume.files.truncate(current, 0)
            current = self._now(node)
        return self.volume.files.open(current, writing=True)

    def _now(self, node: Node) -> Node:
        current = self.volume.context.node(node.id)
        if current is None:
            raise OSError(errno.ESTALE, "gone")
        return current

    async def _put(self, handle: FileHandle, token: bytes, offset: int | None) -> None:
        """Write a token at an offset, or at the end."""
        node = handle.opened.node
        handle.append = offset is None
        wait = self.volume.files.before_write(handle, offset or 0, len(token))
        if wait is not None:
            await wait
        before = self.tokens(node)
        overwritten = before - self._spared(handle, before, offset)
        with self._taking(overwritten, "write"):
            self.volume.files.write(handle, offset or 0, token)
        if self.store.nodes.names(node) and self.left is None:
            self.ledger.wrote(token)

    def _spared(self, handle: FileHandle, before: set[bytes], offset: int | None) -> set[bytes]:
        """What a write leaves of what was there; of what is not here nobody can say."""
        node = self.volume.context.node(handle.opened.node)
        if offset is None or node is None:
            return before
        data = self.content(node)
        return set(tokens_in(data[:offset]) | tokens_in(data[offset + SIZE :]))

    def _close(self, handle: FileHandle) -> None:
        node = handle.opened.node
        if self.volume.files.close(handle):
            self.volume.closed(node, handle.opened)
        elif not handle.opened.writers:
            self.volume.written(node)

    async def _write(self, path: str, how: str) -> None:
        token = self.ledger.new(self.name)
        if how == "create":
            parent, name = await self._absent(path)
            node = self.volume.changes.create(
                parent, name, Kind.FILE, 0o644, os.getuid(), os.getgid()
            )
            handle = self.volume.files.open(node, writing=True)
        else:
            node = await self._there(path)
            if how == "truncate":
                await self._truncate(node)
                return
            handle = await self._opened(node, truncate=how == "new")
        try:
            await self._put(handle, token, None if how == "append" else 0)
        finally:
            self._finish(handle)

    def _finish(self, handle: FileHandle) -> None:
        if self.left is None:
            self._close(handle)

    async def _truncate(self, node: Node) -> None:
        if node.kind is not Kind.FILE:
            raise OSError(errno.EISDIR, "no file")
        node = self._now(node)
        size = node.size // 2 // SIZE * SIZE
        kept = tokens_in(self.content(node)[:size])
        with self._taking(self.tokens(node.id) - kept, "truncate"):
            self.volume.files.truncate(node, size)

    async def _read_all(self, node: Node) -> bytes:
        await self.volume.fetcher.whole(node.id)
        current = self._now(node)
        if not self.store.content.covers(node.id, 0, current.size):
            raise OSError(errno.EIO, "not whole")
        return self.content(current)

    async def _read(self, path: str) -> None:
        node = await self._there(path)
        if node.kind is Kind.FILE:
            wait = self.volume.tree.freshen(node.id)
            if wait is not None:
                await wait
            await self._read_all(node)

    async def _save(self, path: str, how: str) -> None:
        """As editors do it: a new file over the old one, or the old one made a backup first."""
        node = await self._there(path)
        if node.kind is not Kind.FILE:
            raise OSError(errno.EISDIR, "no file")
        old = await self._read_all(node)
        if how == "backup":
            await self._rename(path, path + "~")
            await self._new_file(path, old, node.mode)
        else:
            await self._new_file(path + ".tmp", old, node.mode)
            await self._rename(path + ".tmp", path, meant=tokens_in(old))

    async def _new_file(self, path: str, old: bytes, mode: int) -> None:
        parent, name = await self._absent(path)
        token = self.ledger.new(self.name)
        made = self.volume.changes.create(parent, name, Kind.FILE, mode, os.getuid(), os.getgid())
        handle = self.volume.files.open(made, writing=True)
        try:
            self.volume.files.write(handle, 0, old)
            await self._put(handle, token, None)
        finally:
            self._finish(handle)

    async def _mkdir(self, path: str) -> None:
        parent, name = await self._absent(path)
        self.volume.changes.create(parent, name, Kind.DIRECTORY, 0o755, os.getuid(), os.getgid())

    async def _unlink(self, path: str) -> None:
        parent, name = await self._place(path)
        node = await self._looked_up(parent, name)
        if node is None:
            raise OSError(errno.ENOENT, "no such file")
        self._unlink_child(parent, name, node)

    def _unlink_child(self, parent: NodeId, name: bytes, node: Node) -> None:
        seen = self._going_with(node.id) if node.kind is Kind.FILE else set()
        with self._taking(seen, f"unlink {os.fsdecode(name)}"):
            self.volume.changes.unlink(parent, name)
        self._gone(node.id)

    def _going_with(self, node: NodeId) -> set[bytes]:
        """What goes with a name: also what was seen to be another, and was not read since."""
        base = self.store.server.get(node)
        if base is None or self.store.content.token(node) != SUSPECT:
            return self.tokens(node)
        return self.tokens(node) | self.share.versions.get(base.token, frozenset())

    def _gone(self, node: NodeId) -> None:
        self.volume.unlinked(node)
        self.volume.forgotten(node)

    async def _rmdir(self, path: str) -> None:
        parent, name = await self._place(path)
        node = await self._looked_up(parent, name)
        if node is None:
            raise OSError(errno.ENOENT, "no such directory")
        if node.kind is not Kind.DIRECTORY:
            raise OSError(errno.ENOTDIR, "no directory")
        if not self.volume.tree.directory_is_fresh(node.id):
            await self.volume.tree.open_directory(node.id)
        self.volume.changes.rmdir(parent, name)
        self._gone(node.id)

    async def _remove(self, path: str) -> None:
        """rm -r."""
        node = await self._there(path)
        if node.kind is not Kind.DIRECTORY:
            raise OSError(errno.ENOTDIR, "no directory")
        handle = await self.volume.tree.open_directory(node.id)
        for name, child in self.volume.tree.load(handle):
            if child.kind is Kind.DIRECTORY:
                await self._remove(f"{path}/{os.fsdecode(name)}")
            else:
                await self._unlink(f"{path}/{os.fsdecode(name)}")
        await self._rmdir(path)

    async def _retype(self, path: str) -> None:
        node = await self._there(path)
        if node.kind is Kind.DIRECTORY:
            await self._remove(path)
            await self._write(path, "create")
        else:
            await self._unlink(path)
            await self._mkdir(path)

    async def _rename(
        self, path: str, to: str, *, meant: Iterable[bytes] = (), flags: int = 0
    ) -> None:
        parent, name = await self._place(path)
        to_parent, to_name = await self._place(to)
        node = await self._looked_up(parent, name)
        target = await self._looked_up(to_parent, to_name)
        if node is None:
            raise OSError(errno.ENOENT, "no such file")
        gone: set[bytes] = set()
        if target is not None and target.id != node.id and target.kind is Kind.FILE and not flags:
            gone = self._going_with(target.id) - set(meant)
        with self._taking(gone, f"rename over {to}"):
            self.volume.changes.rename(parent, name, to_parent, to_name, flags)
        if target is not None:
            self._gone(target.id)

    async def _exchange(self, path: str, to: str) -> None:
        await self._rename(path, to, flags=RENAME_EXCHANGE)

    async def _link(self, path: str, to: str) -> None:
        node = await self._there(path)
        self.volume.changes.link(node.id, *await self._absent(to))

    async def _symlink(self, path: str, target: str) -> None:
        parent, name = await self._absent(path)
        self.volume.changes.create(
            parent,
            name,
            Kind.SYMLINK,
            0o777,
            os.getuid(),
            os.getgid(),
            target=os.fsencode(target),
        )

    async def _chmod(self, path: str, mode: int) -> None:
        node = await self._there(path)
        if node.kind is Kind.SYMLINK:
            raise OSError(errno.EOPNOTSUPP, "not followed")
        mode |= 0o100 if node.kind is Kind.DIRECTORY else 0
        self.volume.changes.set_attributes(node.id, Attributes(mode=mode))

    async def _utime(self, path: str) -> None:
        node = await self._there(path)
        self.volume.changes.set_attributes(node.id, Attributes(mtime_ns=10**18, atime_ns=10**18))

    async def _xattr(self, path: str, value: str) -> None:
        node = await self._there(path)
        if node.kind not in (Kind.FILE, Kind.DIRECTORY):
            raise OSError(errno.EPERM, "user.* is for files and directories")
        await self.volume.tree.xattrs(node.id)
        self.volume.changes.set_xattr(node.id, b"user.model", value.encode(), 0)

    # -- a file that stays open -----------------------------------------------------------

    async def _hold(self, path: str) -> None:
        if self.held is not None:
            raise OSError(errno.EMFILE, "one at a time")
        self.held = (await self._opened(await self._there(path)), path)

    async def _scribble(self) -> None:
        if self.held is None:
            raise OSError(errno.EBADF, "nothing open")
        await self._put(self.held[0], self.ledger.new(self.name), None)

    async def _release(self) -> None:
        if self.held is None:
            raise OSError(errno.EBADF, "nothing open")
        handle, self.held = self.held[0], None
        self._close(handle)
