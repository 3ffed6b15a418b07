"""What programs can ask about files in an awayfs mount, and have done with them.

    import awayfs.cachectl as cachectl

    cachectl.state("share/report.odt").flags     Flag.DIRTY | Flag.CONFLICTED
    cachectl.pin("share/photos", priority=10)
    cachectl.fetch("share/film.mkv")             returns when all of it is here
    fd = cachectl.open("share/report.odt", variant="server")

Every function takes a path or a descriptor. OSError carries what the daemon says: ENOTTY where
the file is in no awayfs mount, ENOENT where it has no such variant, EACCES, EROFS; ValueError that
no file ever has one of that name. The ioctls below, and their C structs, are in ``docs/ioctl.md``.
"""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable
from typing import TypeVar

from awayfs.control import mountinfo
from awayfs.core import ioctls
from awayfs.core.errors import ECONFLICTED
from awayfs.core.ioctls import Flag, State, Variant, VariantFacts

__all__ = [
    "Flag",
    "State",
    "Variant",
    "VariantFacts",
    "fetch",
    "open",
    "pin",
    "state",
    "switch",
    "unpin",
    "variants",
]

Where = str | bytes | os.PathLike[str] | os.PathLike[bytes] | int
"""A path, or a descriptor of an open file or directory."""

T = TypeVar("T")

_BY_NAME = frozenset({errno.EBUSY, ECONFLICTED, errno.EACCES, errno.ELOOP, errno.ENXIO})
"""What open(2) may say of a file that can still be asked about through its directory."""


def state(where: Where) -> State:
    """Whether it is clean, dirty, conflicted and so on, how much of it is here, and the mode."""
    return State.unpack(_ask(where, ioctls.STATE, ioctls.pack_state))


def variants(where: Where) -> dict[Variant, VariantFacts]:
    """Which variants there are."""
    return ioctls.unpack_variants(
        _ask(where, ioctls.VARIANTS, lambda name: ioctls.pack_variants(name, {}))
    )


def pin(where: Where, priority: int | None = None) -> None:
    """Keep it here, with all below it; what is missing is fetched in the background."""
    wanted = ioctls.DEFAULT_PRIORITY if priority is None else priority
    _ask(where, ioctls.PIN, lambda name: ioctls.pack_pin(name, wanted))


def unpin(where: Where) -> None:
    """The opposite of ``pin``; ENODATA when it was not pinned itself."""
    _ask(where, ioctls.UNPIN, ioctls.pack_name)


def fetch(where: Where) -> None:
    """Have all of its content here, of a directory all that is in it; waits until it is."""
    _ask(where, ioctls.FETCH, ioctls.pack_name)


def open(where: Where, variant: Variant | str = Variant.LOCAL) -> int:
    """A new descriptor of one variant, to read from; the caller closes it.

    It keeps what it shows, whatever becomes of the file. With a descriptor that has written and
    was not synchronised since: EBUSY.
    """
    which = _variant(variant) if isinstance(variant, str) else variant
    return _on_descriptor(where, lambda fd, name: _opened(fd, name, which))


def switch(fd: int, variant: Variant | str) -> None:
    """Have the open descriptor ``fd`` be one of another variant of its file, read from its start.

    The number stays, so what was handed the descriptor reads the variant.
    """
    found = open(fd, variant)
    try:
        os.dup2(found, fd, inheritable=os.get_inheritable(fd))
    finally:
        os.close(found)


def _variant(name: str) -> Variant:
    try:
        return Variant[name.upper()]
    except KeyError:
        known = ", ".join(variant.name.lower() for variant in Variant)
        raise ValueError(f"{name!r} is no variant; there are {known}") from None


def _opened(fd: int, name: bytes, which: Variant) -> int:
    answer = _ioctl(fd, ioctls.OPEN_VARIANT, ioctls.pack_open(name, which))
    _, path = ioctls.unpack_open(answer)
    root = _root_of(fd)
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC, dir_fd=root)
    finally:
        os.close(root)


def _root_of(fd: int) -> int:
    """A descriptor of the root of the mount that ``fd`` is in."""
    device = os.fstat(fd).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for entry in mountinfo.read():
        if entry.device == wanted and entry.root == b"/":
            try:
                root = os.open(entry.mountpoint, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except OSError:
                continue
            if os.fstat(root).st_dev == device:
                return root
            os.close(root)
    raise OSError(errno.ENOENT, "the root of the file's mount cannot be seen from here")


def _ask(where: Where, number: int, packed: Callable[[bytes], bytes]) -> bytes:
    return _on_descriptor(where, lambda fd, name: _ioctl(fd, number, packed(name)))


def _on_descriptor(where: Where, call: Callable[[int, bytes], T]) -> T:
    """``call`` with a descriptor of the object, or of its directory and its name there."""
    if isinstance(where, int):
        return call(where, b"")
    path = os.fsencode(where)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    name = b""
    try:
        fd = os.open(path, flags)
    except OSError as error:
        name = os.path.basename(path)
        if error.errno not in _BY_NAME or name in (b"", b".", b".."):
            raise
        fd = os.open(os.path.dirname(path) or b".", flags | os.O_DIRECTORY)
    try:
        return call(fd, name)
    finally:
        os.close(fd)


def _ioctl(fd: int, number: int, data: bytes) -> bytes:
    buffer = bytearray(data)
    fcntl.ioctl(fd, number, buffer)
    return bytes(buffer)
