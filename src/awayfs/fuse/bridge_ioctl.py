"""Handlers for ioctls on open files and directories (``core/ioctls``, ``docs/ioctl.md``).

The kernel lets anyone who has a descriptor ask. What tells about content asks for the right to
read that content; what changes the state kept here asks for ownership or the right to write.
"""

from __future__ import annotations

import errno
from collections.abc import Awaitable, Callable

from awayfs.core import ioctls
from awayfs.core.ioctls import Variant
from awayfs.core.permissions import READ, SEARCH, Caller, Rights, allows, may_change_state
from awayfs.core.setting_table import PIN_PRIORITY, PIN_PRIORITY_MAX
from awayfs.core.types import Kind, NodeId
from awayfs.fuse import requests as rq
from awayfs.fuse.bridge_shared import Shared
from awayfs.fuse.replies import ioctl_out
from awayfs.fuse.session import Handler, Result
from awayfs.store.nodes import Node
from awayfs.volume.files import FileHandle
from awayfs.volume.variants import Variants
from awayfs.volume.virtual_node import VirtualNode

NodeAnswer = Callable[[rq.Ioctl, Node], Result]


class IoctlHandlers:
    """IOCTL."""

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._volume = shared.volume
        self._variants = Variants(shared.volume.context, shared.volume.virtual)
        self._commands: dict[int, Handler] = {
            ioctls.STATE: self._state,
            ioctls.PIN: self._pin,
            ioctls.UNPIN: self._unpin,
            ioctls.FETCH: self._fetch,
            ioctls.VARIANTS: self._told_variants,
            ioctls.OPEN_VARIANT: self._open_variant,
        }

    def table(self) -> dict[type[rq.Request], Handler]:
        """Request type → handler."""
        return {rq.Ioctl: self.ioctl}

    def ioctl(self, request: rq.Ioctl) -> Result:
        """ioctl(2); ENOTTY for what is not ours."""
        command = self._commands.get(request.cmd)
        if command is None:
            raise OSError(errno.ENOTTY, "no such ioctl")
        if len(request.data) != request.cmd >> 16 & 0x3FFF:
            raise OSError(errno.EINVAL, "the struct has another size")
        return command(request)

    def _state(self, request: rq.Ioctl) -> Result:
        return self._of_node(request, self._state_of)

    def _state_of(self, _request: rq.Ioctl, node: Node) -> bytes:
        states = self._volume.states
        flags = ioctls.Flag(0)
        for name in states.of(node.id):
            flags |= ioctls.Flag[name.upper()]
        store = self._volume.store
        pin = store.pins.get(node.id)
        inherited = ioctls.PIN_INHERITED if store.pins.is_pinned(node.id) else ioctls.NOT_PINNED
        found = ioctls.State(
            flags=flags,
            mode=str(self._volume.mode),
            node=node.id,
            size=node.size,
            cached=sum(r.end - r.start for r in store.content.ranges(node.id)),
            pin=pin.priority if pin is not None else inherited,
            variants=sum(1 << which for which in self._variants.of(node.id)),
        )
        return ioctl_out(0, found.pack())

    def _pin(self, request: rq.Ioctl) -> Result:
        return self._of_node(request, self._pin_node)

    def _pin_node(self, request: rq.Ioctl, node: Node) -> bytes:
        priority = ioctls.unpack_pin(request.data)
        if priority == ioctls.DEFAULT_PRIORITY:
            priority = PIN_PRIORITY
        if priority > PIN_PRIORITY_MAX:
            raise OSError(errno.EINVAL, "a pin's priority is 0 to 1000")
        self._check_may_change(request, node)
        self._volume.pin_node(node.id, priority)
        return ioctl_out()

    def _unpin(self, request: rq.Ioctl) -> Result:
        return self._of_node(request, self._unpin_node)

    def _unpin_node(self, request: rq.Ioctl, node: Node) -> bytes:
        self._check_may_change(request, node)
        if not self._volume.unpin_node(node.id):
            raise OSError(errno.ENODATA, "not pinned")
        return ioctl_out()

    def _check_may_change(self, request: rq.Ioctl, node: Node) -> None:
        self._volume.check_writable()
        if not may_change_state(_rights(node), _caller(request)):
            raise OSError(errno.EACCES, "only the owner, or who may write, may do that")

    def _fetch(self, request: rq.Ioctl) -> Result:
        return self._of_node(request, self._fetch_node)

    def _fetch_node(self, request: rq.Ioctl, node: Node) -> Result:
        if not allows(_rights(node), _caller(request), READ):
            raise OSError(errno.EACCES, "may not be read")
        return self._fetched(node)

    async def _fetched(self, node: Node) -> bytes:
        """Everything of a file, or below a directory, is here when this returns."""
        if node.kind is Kind.FILE:
            await self._volume.fetcher.whole(node.id)
        elif node.kind is Kind.DIRECTORY:
            async for _ in self._volume.hoard.walk(node.id):
                pass
        return ioctl_out()

    # -- variants -------------------------------------------------------------------------

    def _told_variants(self, request: rq.Ioctl) -> Result:
        return self._of_node(request, self._variants_of)

    def _variants_of(self, request: rq.Ioctl, node: Node) -> bytes:
        return ioctl_out(0, ioctls.pack_variants(b"", self._variants.facts(node.id)))

    def _open_variant(self, request: rq.Ioctl) -> Result:
        return self._of_node(request, self._ticket)

    def _ticket(self, request: rq.Ioctl, node: Node) -> bytes:
        """A path below the mount's root where the variant can be opened, now and by this user."""
        number, _ = ioctls.unpack_open(request.data)
        if number not in list(Variant):
            raise OSError(errno.EINVAL, "no such variant")
        if not ioctls.name_of(request.data):
            self._check_saved(request.fh)
        variant = self._variants.one(node.id, Variant(number))
        caller = _caller(request)
        if not allows(self._rights_of(variant), caller, READ):
            raise OSError(errno.EACCES, "this variant may not be read")
        if variant.kind is Kind.DIRECTORY:
            path = self._variants.tree_path(node.id, Variant(number))
            if path is None:
                raise OSError(errno.ENOENT, "there is no such variant")
        elif variant.kind is Kind.FILE:
            path = b".awayfs/variant/" + self._volume.virtual.tickets.give(caller.uid, variant)
        else:
            raise OSError(errno.EINVAL, "only files and directories can be opened")
        return ioctl_out(0, ioctls.pack_open(b"", number, path))

    def _check_saved(self, fh: int) -> None:
        """Who has written through the descriptor must not take another one in its place."""
        handle = self._shared.handles.get(fh)
        if not isinstance(handle, FileHandle) or not handle.writing:
            return
        if handle.opened.unsaved or handle.opened.unsynced:
            raise OSError(errno.EBUSY, "there is unsaved data; fsync(2) first")

    def _rights_of(self, variant: VirtualNode) -> Rights:
        options = self._volume.context.options
        uid, gid = variant.owner or (options.uid, options.gid)
        return Rights(uid, gid, variant.mode)

    # -- whose ----------------------------------------------------------------------------

    def _of_node(self, request: rq.Ioctl, answer: NodeAnswer) -> Result:
        """``answer`` for the node that a request is about."""
        name = ioctls.name_of(request.data)
        if not name:
            return answer(request, self._present(request.nodeid))
        if name in (b".", b"..") or b"/" in name:
            raise OSError(errno.EINVAL, "not the name of an entry")
        directory = self._present(request.nodeid)
        if directory.kind is not Kind.DIRECTORY:
            raise OSError(errno.ENOTDIR, "a name needs a directory's descriptor")
        if not allows(_rights(directory), _caller(request), SEARCH):
            raise OSError(errno.EACCES, "the directory may not be searched")
        found = self._volume.tree.lookup(directory.id, name)
        if isinstance(found, Node):
            return answer(request, found)
        return self._of_node_later(request, found, answer)

    async def _of_node_later(
        self, request: rq.Ioctl, found: Awaitable[Node], answer: NodeAnswer
    ) -> bytes:
        result = answer(request, await found)
        done = await result if isinstance(result, Awaitable) else result
        assert isinstance(done, bytes)
        return done

    def _present(self, nodeid: NodeId) -> Node:
        node = self._volume.context.node(nodeid)
        if node is None:
            raise OSError(errno.ESTALE, "the file is gone")
        return node


def _rights(node: Node) -> Rights:
    return Rights(node.uid, node.gid, node.mode)


def _caller(request: rq.Ioctl) -> Caller:
    return Caller(request.uid, request.gid, _groups(request.pid) if request.uid else ())


def _groups(pid: int) -> frozenset[int]:
    """The further groups of a process that waits for us; none where they cannot be seen."""
    if pid <= 0:
        return frozenset()
    try:
        with open(f"/proc/{pid}/status", "rb") as file:
            lines = file.read().splitlines()
    except OSError:
        return frozenset()
    for line in lines:
        if line.startswith(b"Groups:"):
            return frozenset(int(group) for group in line.split()[1:])
    return frozenset()
