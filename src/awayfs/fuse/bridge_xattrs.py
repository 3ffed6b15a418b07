"""Handlers for extended attributes: the file's own, and those that tell awayfs's view of it."""

from __future__ import annotations

import errno

from awayfs.core.setting_table import PIN_PRIORITY, PIN_PRIORITY_MAX, TABLE
from awayfs.fuse import requests as rq
from awayfs.fuse.bridge_shared import Shared
from awayfs.fuse.replies import xattr_size_out
from awayfs.fuse.session import Handler, Result

OWN = b"user.awayfs."
PIN = OWN + b"pin"
SETTINGS = {OWN + name.encode(): name for name, one in TABLE.items() if one.xattr and name != "pin"}


class XattrHandlers:
    """getxattr, listxattr, setxattr, removexattr.

    ``user.awayfs.*`` are answered for every node but never listed, so that ``cp -a`` and
    ``rsync -X`` do not carry them away.
    """

    def __init__(self, shared: Shared) -> None:
        self._shared = shared
        self._volume = shared.volume

    def table(self) -> dict[type[rq.Request], Handler]:
        """Request type → handler."""
        return {
            rq.Getxattr: self.getxattr,
            rq.Listxattr: self.listxattr,
            rq.Setxattr: self.setxattr,
            rq.Removexattr: self.removexattr,
        }

    def getxattr(self, request: rq.Getxattr) -> Result:
        """One attribute."""
        name = request.name
        if name.startswith(OWN):
            return self._sized(request.size, self._own(request.nodeid, name))
        if not name.startswith(b"user."):
            code = errno.EOPNOTSUPP if name.startswith(b"system.") else errno.ENODATA
            raise OSError(code, "not kept here")
        return self._getxattr(request)

    async def _getxattr(self, request: rq.Getxattr) -> bytes:
        value = (await self._volume.tree.xattrs(request.nodeid)).get(request.name)
        if value is None:
            raise OSError(errno.ENODATA, "no such attribute")
        return self._sized(request.size, value)

    async def listxattr(self, request: rq.Listxattr) -> bytes:
        """The file's own names."""
        names = await self._volume.tree.xattrs(request.nodeid)
        return self._sized(request.size, b"".join(name + b"\0" for name in names))

    def setxattr(self, request: rq.Setxattr) -> Result:
        """Set one; ``user.awayfs.pin`` pins, its value being the priority.

        Others that are settings hold for the node with all that is below.
        """
        self._volume.check_writable()
        if request.name == PIN:
            self._volume.pin_node(request.nodeid, _priority(request.value))
            return b""
        if request.name in SETTINGS:
            self._volume.set_for_node(request.nodeid, SETTINGS[request.name], _text(request.value))
            return b""
        self._check(request.name)
        return self._set(request.nodeid, request.name, request.value, request.flags)

    def removexattr(self, request: rq.Removexattr) -> Result:
        """Remove one; ``user.awayfs.pin`` unpins."""
        self._volume.check_writable()
        if request.name == PIN:
            if not self._volume.unpin_node(request.nodeid):
                raise OSError(errno.ENODATA, "not pinned")
            return b""
        if request.name in SETTINGS:
            if SETTINGS[request.name] not in self._volume.store.node_settings.of(request.nodeid):
                raise OSError(errno.ENODATA, "not set here")
            self._volume.set_for_node(request.nodeid, SETTINGS[request.name], None)
            return b""
        self._check(request.name)
        return self._set(request.nodeid, request.name, None, 0)

    async def _set(self, nodeid: int, name: bytes, value: bytes | None, flags: int) -> bytes:
        await self._volume.tree.xattrs(nodeid)
        self._volume.changes.set_xattr(nodeid, name, value, flags)
        return b""

    def _check(self, name: bytes) -> None:
        if name.startswith(OWN):
            raise OSError(errno.EPERM, "this attribute cannot be set")
        if not name.startswith(b"user."):
            raise OSError(errno.EOPNOTSUPP, "only user.* attributes are kept")

    def _own(self, nodeid: int, name: bytes) -> bytes:
        value = self._volume.states.attribute(
            nodeid, name.removeprefix(OWN).decode("ascii", "replace")
        )
        if value is None:
            raise OSError(errno.ENODATA, "no such attribute")
        return value.encode(errors="surrogateescape")

    def _sized(self, size: int, value: bytes) -> bytes:
        if size == 0:
            return xattr_size_out(len(value))
        if len(value) > size:
            raise OSError(errno.ERANGE, "the buffer is too small")
        return value


def _text(value: bytes) -> str:
    """A setting's value; empty means on."""
    return bytes(value).rstrip(b"\0").decode("utf-8", "replace").strip() or "on"


def _priority(value: bytes) -> int:
    """The priority that a pin's value asks for; empty means the one that ``awayfs pin`` gives."""
    text = bytes(value).rstrip(b"\0").strip()
    if not text:
        return PIN_PRIORITY
    if not text.isdigit() or int(text) > PIN_PRIORITY_MAX:
        raise OSError(errno.EINVAL, "a pin's value is its priority, 0 to 1000")
    return int(text)
