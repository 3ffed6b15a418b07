"""Attributes and extended attributes of objects that are open, O_PATH included.

``/proc/self/fd/N`` leads to the very object behind a descriptor, a symlink itself included
(proc_pid_fd(5)), which gives the calls that know no AT_EMPTY_PATH something to work on.
"""

from __future__ import annotations

import errno
import os
import stat

from awayfs.core.types import Attributes
from awayfs.remotes import linux

ACCESS_ACL = "system.posix_acl_access"
USER_PREFIX = "user."
NO_XATTRS = frozenset({errno.EOPNOTSUPP, errno.ENOSYS, errno.EPERM})
CARRY_ON = NO_XATTRS | {errno.EINVAL, errno.EACCES, errno.ENOSPC, errno.EDQUOT, errno.E2BIG}


def proc_path(fd: int) -> bytes:
    """A path to the object behind ``fd``."""
    return b"/proc/self/fd/%d" % fd


def apply(fd: int, attributes: Attributes) -> None:
    """Set attributes of the object behind ``fd``; the mode of a symlink is left alone.

    chown(2) clears the set-id bits, so the mode comes after it; the times come last.
    """
    if attributes.uid is not None or attributes.gid is not None:
        linux.chown(fd, _or_keep(attributes.uid), _or_keep(attributes.gid))
    if attributes.mode is not None and not stat.S_ISLNK(os.fstat(fd).st_mode):
        os.chmod(proc_path(fd), stat.S_IMODE(attributes.mode))
    if attributes.mtime_ns is not None or attributes.atime_ns is not None:
        linux.set_times_of(fd, attributes.atime_ns, attributes.mtime_ns)


def read_xattrs(fd: int) -> dict[bytes, bytes]:
    """All ``user.*`` attributes of the object behind ``fd``."""
    found: dict[bytes, bytes] = {}
    for name in _xattr_names(fd):
        if not name.startswith(USER_PREFIX):
            continue
        try:
            found[os.fsencode(name)] = os.getxattr(proc_path(fd), name)
        except OSError as error:
            if error.errno != errno.ENODATA:  # removed since it was listed
                raise
    return found


def write_xattr(fd: int, name: str, value: bytes | None) -> None:
    """Set one attribute, or with None remove it; ENODATA when it is not there."""
    if not name.startswith(USER_PREFIX):
        raise OSError(errno.EOPNOTSUPP, "only user.* attributes are sent to a server")
    if value is None:
        os.removexattr(proc_path(fd), name)
    else:
        os.setxattr(proc_path(fd), name, value)


def carry_over(old: int, new: int) -> None:
    """Give a new revision the owner, ``user.*`` attributes and ACL of the one it replaces.

    Done as far as it is allowed; the mode that ``new`` has stays. File capabilities and
    security labels are not taken along: they vouch for content that has changed.
    """
    before, mode = os.fstat(old), os.fstat(new).st_mode
    for uid, gid in ((before.st_uid, before.st_gid), (-1, before.st_gid)):
        try:
            linux.chown(new, uid, gid)
            break
        except PermissionError:
            continue
    if stat.S_ISLNK(before.st_mode) or stat.S_ISLNK(mode):
        return
    for name in _xattr_names(old):
        if name.startswith(USER_PREFIX) or name == ACCESS_ACL:
            _copy_xattr(old, new, name)
    try:
        os.chmod(proc_path(new), stat.S_IMODE(mode))
    except PermissionError:
        pass  # no longer the owner


def _copy_xattr(old: int, new: int, name: str) -> None:
    try:
        os.setxattr(proc_path(new), name, os.getxattr(proc_path(old), name))
    except OSError as error:
        if error.errno not in CARRY_ON | {errno.ENODATA}:
            raise


def _xattr_names(fd: int) -> list[str]:
    try:
        return os.listxattr(proc_path(fd))
    except OSError as error:
        if error.errno in NO_XATTRS:
            return []
        raise


def _or_keep(number: int | None) -> int:
    return -1 if number is None else number
