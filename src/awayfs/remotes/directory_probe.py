"""What the file system below a ``dir:`` root can do.

Local file systems whose abilities are known by their magic number (statfs(2)) are not
written to. Others, network mounts above all, are tried out with two empty files of staged
names in the root, gone again at the end, because what they can do depends on the server: the
client takes RENAME_EXCHANGE or not, the export is read-only or not. Those files also tell the
server's clock. Where the root may not be written to, nothing is known, and the careful answer
is given: the guarded operations find out by themselves what works (``Mover``).
"""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Callable

from awayfs.ports.remote import Capabilities, Guard
from awayfs.remotes import linux
from awayfs.remotes.directory_facts import FileSystem, is_well_known
from awayfs.remotes.directory_tree import Tree
from awayfs.remotes.names import aside_name, staged_name
from awayfs.remotes.putting import LARGEST_PUT

LARGEST_IO = 4 << 20
IN_FLIGHT = 16
JIFFY_NS = 4_000_000

_CAP_CHOWN = 0


def probe(tree: Tree, facts: FileSystem) -> Capabilities:
    """Capabilities of the volume, with as little writing as will do."""
    with tree.open_root() as root:
        st = linux.statx(root, fresh=True)
        vfs = os.fstatvfs(root)
        read_only = bool(vfs.f_flag & os.ST_RDONLY)
        stable = facts.file_id(root, st) is not None
        if is_well_known(facts.magic, st):
            found = dict.fromkeys(_ABILITIES, True)
            found["case_sensitive"] = not _folds_case(root)
            granularity = JIFFY_NS
        else:
            found = dict.fromkeys(_ABILITIES, False) | {"mode": True, "case_sensitive": True}
            read_only = read_only or not _try_out(tree, root, facts, found)
            granularity = facts.granularity_ns
    return Capabilities(
        guard=Guard.SWAP if found["exchange"] else Guard.ASIDE,
        stable_ids=stable,
        strong_tokens=False,
        time_granularity_ns=granularity,
        symlinks=found["symlinks"],
        hard_links=found["hard_links"],
        special_files=found["special_files"],
        mode=found["mode"],
        owner=_has_capability(_CAP_CHOWN),
        set_mtime=True,
        xattrs=found["xattrs"],
        exchange=found["exchange"] and stable,  # else none can tell, after a lost answer, if it was
        case_sensitive=found["case_sensitive"],
        read_only=read_only,
        name_max=vfs.f_namemax or 255,
        largest_io=LARGEST_IO,
        in_flight=IN_FLIGHT,
        put=0 if stable else LARGEST_PUT,  # an id tells more of what arrived than its content
        acts_unseen=not stable,
    )


_ABILITIES = (
    "exchange",
    "hard_links",
    "symlinks",
    "special_files",
    "mode",
    "xattrs",
    "case_sensitive",
)


def _try_out(tree: Tree, root: int, facts: FileSystem, found: dict[str, bool]) -> bool:
    """Fill in ``found`` by trying; False where the volume is read-only."""
    op = "probe" + secrets.token_hex(8)
    a, b = staged_name(op), aside_name(op)
    try:
        _create(root, a)
    except OSError as error:
        return error.errno != errno.EROFS
    try:
        entry = tree.entry_at(root, a)
        if entry is not None and entry.ctime_ns is not None:
            if entry.ctime_ns % 10**9 == 0:
                facts.granularity_ns = max(facts.granularity_ns, 10**9)
            facts.learn_clock(entry.ctime_ns)
        found["case_sensitive"] = not _exists(root, a.upper())
        found["xattrs"] = _works(lambda: _xattr(root, a))
        found["mode"] = _works(lambda: os.chmod(a, 0o640, dir_fd=root)) and _mode(root, a) == 0o640
        found["hard_links"] = _works(
            lambda: os.link(a, b, src_dir_fd=root, dst_dir_fd=root, follow_symlinks=False)
        )
        _remove(root, b)
        found["symlinks"] = _works(lambda: os.symlink(b"x", b, dir_fd=root))
        _remove(root, b)
        found["special_files"] = _works(lambda: os.mkfifo(b, 0o600, dir_fd=root))
        _remove(root, b)
        # Two different files: exchanging two names of one file succeeds without being tried.
        _create(root, b)
        found["exchange"] = _works(lambda: linux.renameat2(root, a, root, b, linux.RENAME_EXCHANGE))
    finally:
        _remove(root, a)
        _remove(root, b)
    return True


def _works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


def _create(root: int, name: bytes) -> None:
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC
    os.close(os.open(name, flags, 0o600, dir_fd=root))


def _remove(root: int, name: bytes) -> None:
    try:
        os.unlink(name, dir_fd=root)
    except FileNotFoundError:
        pass


def _exists(root: int, name: bytes) -> bool:
    return _works(lambda: os.stat(name, dir_fd=root, follow_symlinks=False))


def _mode(root: int, name: bytes) -> int:
    return os.stat(name, dir_fd=root, follow_symlinks=False).st_mode & 0o7777


def _xattr(root: int, name: bytes) -> None:
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)
    try:
        os.setxattr(fd, "user.awayfs.probe", b"1")
    finally:
        os.close(fd)


def _folds_case(root: int) -> bool:
    return bool(linux.inode_flags(root) & linux.FS_CASEFOLD_FL)


def _has_capability(number: int) -> bool:
    """Whether this process has a capability (capabilities(7)), by number."""
    with open("/proc/self/status", "rb") as status:
        for line in status:
            if line.startswith(b"CapEff:"):
                return bool(int(line.split()[1], 16) >> number & 1)
    return False
