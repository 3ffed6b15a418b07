"""One awayfs client: store, volume and link, without a mount; and what programs do on it.

What the kernel and the mount layer do before a change (look names up, open, renew what is
stale) is done here in the same order.
"""

from __future__ import annotations

import asyncio
import errno
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from awayfs.core.conflicts import ConflictKind, Resolution
from awayfs.core.errors import RemoteError
from awayfs.core.modes import Mode, ModeState
from awayfs.core.types import ROOT, Attributes, Kind, NodeId
from awayfs.store.conflicts import Conflict
from awayfs.store.db import Database
from awayfs.store.files import FOLDERS, Files
from awayfs.store.nodes import Node
from awayfs.store.store import Store
from awayfs.volume import fault as fault_module
from awayfs.volume.adopt import SUSPECT
from awayfs.volume.changes import RENAME_EXCHANGE
from awayfs.volume.context import Context, VolumeOptions
from awayfs.volume.files import FileHandle
from awayfs.volume.link import Link
from awayfs.volume.recover import recover
from awayfs.volume.volume import Volume
from tests.model.ledger import SIZE, Ledger, tokens_in
from tests.model.remote import Way
from tests.model.share import Share, Tree


@dataclass
class _Only:
    """Settings by which nothing goes unless it is asked for."""

    policy: str

    def value(self, _name: str) -> str:
        return self.policy


class OneFan(Files):
    """All content in one folder: making, copying and removing 512 of them takes longer than
    what is tested.
    """

    def path(self, folder: str, node: NodeId, version: int) -> str:
        above, _, name = super().path(folder, 0, version).rpartition("/")
        return f"{above}/{name.replace('0', str(node), 1)}"


def make_folders(directory: str) -> None:
    """As ``store.files.make_folders``, for ``OneFan``."""
    for folder in (*FOLDERS, "content/00", "base/00"):
        os.makedirs(f"{directory}/{folder}", 0o700, exist_ok=True)


@cache
def new_database() -> bytes:
    """A database as a first mount makes it: to make each anew is a tenth of a sequence's time."""
    with TemporaryDirectory(prefix="awayfs-m-") as folder:
        Database.open(f"{folder}/volume.db").close()
        return Path(folder, "volume.db").read_bytes()


KEPT = ("variants", "history", "lost+found")
WITHOUT_LOSS = (ConflictKind.RENAME_RENAME, ConflictKind.ATTRIBUTE)


class Died(BaseException):
    """The daemon was killed at a named place."""


@dataclass
class _Alarm:
    """Stands in for ``os`` in ``volume.fault``: to kill oneself is to call ``ring``."""

    client: Client

    def getpid(self) -> int:
        return 0

    def kill(self, _pid: int, _signal: int) -> None:
        self.client.killed()


class Client:
    """A client named by one letter, with a state that outlives its daemons."""

    def __init__(
        self,
        name: str,
        base: Path,
        share: Share,
        loop: asyncio.AbstractEventLoop,
        on_call: Any,
        seen: Any,
    ) -> None:
        self.name = name
        self.loop = loop
        self.share = share
        self.ledger: Ledger = share.ledger
        self._base = base
        self._on_call, self._seen = on_call, seen
        self._lives = 0
        self.state = str(base / f"{name}0")
        self.left: str | None = None
        self.deaths = 0
        self.held: tuple[FileHandle, str] | None = None
        os.mkdir(self.state)
        Path(self.state, "volume.db").write_bytes(new_database())
        self.open()

    # -- lives ----------------------------------------------------------------------------

    def open(self) -> None:
        """A new daemon on the state that there is; its link is down."""
        self.store = Store.open(self.state, create=True)
        recover(self.store, time.time_ns())
        own = f"client{self.name}"
        self.way = Way(os.fsencode(self.share.root), own, self._on_call, self._seen)
        link = Link(self.way, time.time_ns, ModeState(Mode.DISCONNECTED, cause="starting"))  # type: ignore[arg-type]
        options = VolumeOptions(
            fresh_s=0.0, uid=os.getuid(), gid=os.getgid(), host=f"host-{self.name}"
        )
        context = Context(self.store, link, options, time.time_ns)
        self.volume = Volume(context, own)
        self.held = None

    def arm(self, name: str, count: int) -> None:
        """The daemon is to die at the ``count``-th pass of a named place."""
        fault_module.os = _Alarm(self)  # type: ignore[attr-defined]
        fault_module._wanted, fault_module._left = name, count

    def disarm(self) -> None:
        """Let it live."""
        fault_module._wanted = ""

    def killed(self) -> None:
        """What kill -9 leaves at this moment is what the next life begins with."""
        self.disarm()
        self._keep()
        raise Died

    def _keep(self) -> None:
        self._lives += 1
        self.left = str(self._base / f"{self.name}{self._lives}")
        shutil.copytree(self.state, self.left)
        self.way.dead = True

    async def die(self) -> None:
        """Killed now, if it is not dead yet; the next life begins."""
        if self.left is None:
            self._keep()
        assert self.left is not None
        await self._abandon()
        shutil.rmtree(self.state)
        self.state, self.left = self.left, None
        self.deaths += 1
        self.open()

    async def _abandon(self) -> None:
        await self._end_tasks()
        for opened in self.volume.context.opened.all():
            os.close(opened.fd)
        self.store.db.close()
        self.store._lock.release()

    async def _end_tasks(self) -> None:
        tasks = list(self.volume.context.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def end(self) -> None:
        """An orderly end."""
        if self.held is not None:
            self._close(self.held[0])
        await self.volume.stop()
        self.store.close()

    async def quiet(self) -> None:
        """Until what was begun in the background is done."""
        while tasks := list(self.volume.context.tasks):
            await asyncio.wait(tasks)

    # -- the link -------------------------------------------------------------------------

    @property
    def online(self) -> bool:
        return self.volume.link.usable

    async def go_online(self) -> None:
        await self.volume.link.online_by_hand()

    def go_offline(self) -> None:
        self.loop.run_until_complete(self._go_offline())

    async def _go_offline(self) -> None:
        self.volume.link.offline_by_hand()

    async def look(self) -> None:
        """See everything, and have it here."""
        async for _ in self.volume.hoard.walk(ROOT):
            pass

    async def drain(self) -> None:
        """Send what can be sent."""
        self.volume.replay.hurry()
        await asyncio.wait_for(self.volume.replay._drain(), 30)

    async def sync_part(self, path: str) -> None:
        """Back online; send what concerns a subtree, and nothing that it does not need."""
        if not self.online:
            await self.go_online()
        top, sending = self.store.nodes.resolve(path.encode()), self.volume.context.sending
        if top is None:
            return
        sending._effective = _Only("manual")  # type: ignore[assignment]
        try:
            self.volume.replay.hurry_first(await sending.of_subtree(top.id))
            await asyncio.wait_for(self.volume.replay._drain(), 30)
        finally:
            sending._effective = self.volume.context.effective

    async def sync(self) -> None:
        """Back online; see and send everything."""
        if not self.online:
            await self.go_online()
        await self.drain()
        await self.look()
        await self.drain()

    # -- what can be seen here ------------------------------------------------------------

    def tokens(self, node_id: NodeId) -> set[bytes]:
        """What stands in this client's view of a node, and of all below it."""
        node = self.volume.context.node(node_id)
        if node is None:
            return set()
        if node.kind is Kind.DIRECTORY:
            children = self.store.nodes.children(node_id)
            return {t for _, child in children for t in self.tokens(child.id)}
        if node.kind is not Kind.FILE:
            return set()
        found = set(tokens_in(self.content(node)))
        base = self.store.server.get(node_id)
        if base is not None and not self.store.content.covers(node_id, 0, node.size):
            found |= self.share.versions.get(base.token, frozenset())
        return found

    def content(self, node: Node) -> bytes:
        """What is here of a file."""
        try:
            with open(self.store.content.fd_path(node.id), "rb") as file:
                return file.read(node.size)
        except FileNotFoundError:
            return b""

    def tree(self) -> Tree:
        """As ``Share.tree``."""
        found: Tree = {}
        names: dict[NodeId, list[str]] = {}
        pending: list[tuple[NodeId, str]] = [(ROOT, "")]
        while pending:
            directory, above = pending.pop()
            for name, child in self.store.nodes.children(directory):
                self.volume.context.opened.overlay(child)
                shown = above + os.fsdecode(name)
                if child.kind is Kind.DIRECTORY:
                    found[shown] = ("dir", oct(child.mode))
                    pending.append((child.id, shown + "/"))
                elif child.kind is Kind.SYMLINK:
                    found[shown] = ("link", os.fsdecode(child.target or b""))
                else:
                    names.setdefault(child.id, []).append(shown)
                    whole = self.store.content.covers(child.id, 0, child.size)
                    content = self.content(child) if whole else f"{child.size} bytes not here"
                    found[shown] = ("file", oct(child.mode), content)
        for group in names.values():
            for name in group:
                found[name] += (tuple(sorted(set(group) - {name})),)
        return found

    def kept(self) -> set[bytes]:
        """All tokens that this client can still show somebody."""
        found = self.tokens(ROOT)
        for conflict in self.store.conflicts.all():
            found |= self.tokens(conflict.node)
        for folder in KEPT:
            for at, _, files in os.walk(f"{self.state}/{folder}"):
                for name in files:
                    found |= tokens_in(Path(at, name).read_bytes())
        return found

    # -- programs -------------------------------------------------------------------------

    async def act(self, op: tuple[Any, ...]) -> None:
        """One operation; ``OSError`` where it makes no sense just then."""
        await getattr(self, f"_{op[0]}")(*op[1:])

    @contextmanager
    def _taking(self, tokens: Iterable[bytes], why: str) -> Iterator[None]:
        """Who sees these takes them away; one who died doing it may have done it."""
        taken = set(tokens)
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
        if self.store.nodes.names(node):
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

    # -- decisions ------------------------------------------------------------------------

    async def resolve(self, conflict: Conflict, keep: Resolution) -> None:
        """Decide; what the decision may cost is given up."""
        cost = self._cost(conflict, keep)
        with self._taking(cost, f"resolve {conflict.kind} --keep {keep}"):
            replay = asyncio.ensure_future(self.volume.replay.run())  # what moved on is met anew
            try:
                await self.volume.resolve(conflict, keep)
            finally:
                replay.cancel()
                await asyncio.gather(replay, return_exceptions=True)

    def _cost(self, conflict: Conflict, keep: Resolution) -> set[bytes]:
        if conflict.kind in WITHOUT_LOSS or keep is Resolution.BOTH:
            return set()
        if keep is Resolution.SERVER:
            return self.tokens(conflict.node)
        cost: set[bytes] = set()
        entry = conflict.server_entry
        if entry is not None and entry.kind is Kind.FILE:
            cost |= self.share.versions.get(entry.token, frozenset())
        if conflict.kind == ConflictKind.REMOVE_UPDATE:
            cost |= self.tokens(conflict.node)
        return cost


def expected(error: BaseException) -> bool:
    """Whether a program or a person may meet this."""
    return isinstance(error, OSError | RemoteError)
