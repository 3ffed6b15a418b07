"""What actors do to names and attributes: each function is one operation of one actor."""

from __future__ import annotations

import os
import stat
import subprocess

from tests.storm.actors import DIRECTORIES, Actor, OnServer, Operation, exchanged, is_file

MODES = (0o600, 0o644, 0o755, 0o444, 0o640)
DIRECTORY_MODES = (0o755, 0o700, 0o775)
TARGETS = (b"a", b"../x", b"/nowhere", b"t" * 300, b"\xff")
ENOUGH_FILES = 150
COPY_S = 90.0


def unlink(actor: Actor) -> None:
    """A file or a symlink goes."""
    actor.remove(actor.pick(stat.S_IFLNK), "unlink")


def rename(actor: Actor) -> None:
    """A file or a symlink moves, perhaps over another."""
    source, target = actor.pick(stat.S_IFLNK), actor.new_path()
    if is_file(target) and os.path.samestat(os.lstat(source), os.lstat(target)):
        return  # two names of one file: rename(2) does nothing
    actor.move(source, target, "rename")


def rename_directory(actor: Actor) -> None:
    """A directory moves with all that is below."""
    source = actor.directory()
    parent = actor.draw.choice(actor.directories())
    target = os.path.join(parent, actor.draw.choice(DIRECTORIES))
    os.rename(source, target)
    actor.record.log(actor.letter, "moved the directory", source, "->", target)


def exchange(actor: Actor) -> None:
    """Two files change places."""
    one, other = actor.pick(), actor.pick()
    if one != other and not isinstance(actor, OnServer):
        exchanged(one, other)


def mkdir(actor: Actor) -> None:
    """A directory, under a name that others want, too."""
    parent = actor.draw.choice(actor.directories())
    os.mkdir(os.path.join(parent, actor.draw.choice(DIRECTORIES)), 0o755)


def rmdir(actor: Actor) -> None:
    """A directory goes, if it is empty."""
    os.rmdir(actor.directory())


def remove_tree(actor: Actor) -> None:
    """A directory goes with all that is below, now and then."""
    if actor.draw.random() > 0.3:
        return
    top = actor.directory()
    for directory, names, files in os.walk(top, topdown=False):
        for name in files:
            actor.remove(os.path.join(directory, name), "remove tree")
        for path in (os.path.join(directory, name) for name in names):
            if os.path.islink(path):
                os.unlink(path)
            else:
                os.rmdir(path)
    os.rmdir(top)


def link(actor: Actor) -> None:
    """A further name of a file."""
    os.link(actor.pick(), actor.new_path())


def symlink(actor: Actor) -> None:
    """A symlink to somewhere."""
    target = actor.draw.choice(TARGETS) + b"%d" % actor.draw.randrange(99)
    os.symlink(target, actor.new_path())


def chmod(actor: Actor) -> None:
    """Another mode for a file."""
    os.chmod(actor.pick(), actor.draw.choice(MODES))


def chmod_directory(actor: Actor) -> None:
    """Another mode for a directory."""
    os.chmod(actor.directory(), actor.draw.choice(DIRECTORY_MODES))


def utime(actor: Actor) -> None:
    """Another time for a file, of any year. Over SFTP no revision shows but by its time and size:
    nobody on such a server sets it back.
    """
    if isinstance(actor, OnServer) and actor.world.plan.kind == "sftp":
        return
    time_ns = actor.draw.randrange(10**9, 16 * 10**8) * 10**9 + actor.draw.randrange(10**9)
    os.utime(actor.pick(), ns=(time_ns, time_ns))


def xattr(actor: Actor) -> None:
    """An extended attribute is set or goes, where the server has such."""
    if actor.world.plan.kind == "sftp":
        return
    path, name = actor.pick(), b"user." + actor.draw.choice((b"k", b"l"))
    if actor.draw.random() < 0.7:
        os.setxattr(path, name, b"%d" % actor.draw.randrange(10**6))
    else:
        os.removexattr(path, name)


def copy_tree(actor: Actor) -> None:
    """``cp -a`` of a directory to another place, while there are few files."""
    source, target = actor.directory(), actor.new_path()
    if os.path.lexists(target) or len(actor.files()) > ENOUGH_FILES:
        return
    if target.startswith(source + b"/"):
        return
    actor.record.log(actor.letter, "copies", source, "to", target)
    command: list[str | bytes] = ["cp", "-a", "--", source, target]
    subprocess.run(command, capture_output=True, timeout=COPY_S, check=False)


OPERATIONS: dict[str, tuple[int, Operation]] = {
    "unlink": (5, unlink),
    "rename": (7, rename),
    "renamedir": (3, rename_directory),
    "exchange": (1, exchange),
    "mkdir": (5, mkdir),
    "rmdir": (2, rmdir),
    "rmtree": (2, remove_tree),
    "link": (2, link),
    "symlink": (2, symlink),
    "chmod": (3, chmod),
    "chmoddir": (1, chmod_directory),
    "utime": (2, utime),
    "xattr": (2, xattr),
    "cptree": (1, copy_tree),
}
"""Each with its weight."""
