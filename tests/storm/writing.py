"""What actors do to content: each function is one operation of one actor.

An ``OSError`` is an answer, and ends the operation. What was acknowledged until then is owed.
"""

from __future__ import annotations

import mmap
import os
import time

from awayfs.remotes import linux
from tests.storm.actors import (
    Actor,
    Operation,
    content,
    content_behind,
    exclusively_moved,
    is_file,
)
from tests.storm.ledger import BLOCK, FILL, block, tokens_in, torn

TEMPORARY = (b".tmp~", b"4913", b".goutputstream-X", b"#t#")
"""Names under which editors save first."""
LONGEST_NAME = 200


def create(actor: Actor) -> None:
    """A file, new or written over from its beginning."""
    path = actor.new_path()
    token, blocks = actor.new_content()
    if os.path.isdir(path) or os.path.islink(path):
        return
    actor.put(actor.emptied(path, 0o644), token, blocks, path, actor.draw.random() < 0.3)


def excl(actor: Actor) -> None:
    """A file that must be new."""
    name = b"e%s%d" % (actor.letter.encode(), actor.draw.randrange(10**6))
    path = os.path.join(actor.draw.choice(actor.directories()), name)
    token, blocks = actor.new_content()
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    actor.put(fd, token, blocks, path, actor.draw.random() < 0.5)


def append(actor: Actor) -> None:
    """Some blocks at the end."""
    path = actor.pick()
    token, blocks = actor.new_content()
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    actor.put(fd, token, min(blocks, 100), path, actor.draw.random() < 0.3)


def overwrite(actor: Actor) -> None:
    """Some blocks in the middle, perhaps beyond the end."""
    path = actor.pick()
    token, blocks = actor.new_content()
    length = min(blocks, 50) * BLOCK
    fd = os.open(path, os.O_RDWR)
    try:
        size = os.fstat(fd).st_size
        old = os.pread(fd, size, 0)
        at = actor.draw.randrange(0, size // BLOCK + 1) * BLOCK
        actor.give_up(tokens_in(old[at : at + length]), "overwrite", path)
        actor.give_up(tokens_in(os.pread(fd, length, at)), "overwrite", path)
        os.pwrite(fd, block(token) * (length // BLOCK), at)
        actor.keep(fd, path, token, length // BLOCK)
    finally:
        os.close(fd)


def truncate(actor: Actor) -> None:
    """Shorter, or longer by a hole."""
    path = actor.pick()
    fd = os.open(path, os.O_RDWR)
    try:
        old = content_behind(fd)
        size = actor.draw.randrange(0, len(old) // BLOCK + 4) * BLOCK
        actor.give_up(tokens_in(old[size:]), "truncate", path)
        last = content_behind(fd)
        os.ftruncate(fd, size)
        actor.give_up(tokens_in(last[size:]), "truncate", path)
    finally:
        os.close(fd)


def punch(actor: Actor) -> None:
    """A hole."""
    path = actor.pick()
    old = content(path)
    if not old:
        return
    at = actor.draw.randrange(0, len(old) // BLOCK + 1) * BLOCK
    length = actor.draw.randrange(1, 300) * BLOCK
    actor.give_up(tokens_in(old[at : at + length]), "punch", path)
    fd = os.open(path, os.O_RDWR)
    try:
        actor.give_up(tokens_in(content_behind(fd)[at : at + length]), "punch", path)
        linux.punch_hole(fd, at, length)
    finally:
        os.close(fd)


def mapped(actor: Actor) -> None:
    """One block through a shared mapping."""
    path = actor.pick()
    old = content(path)
    if len(old) < 2 * BLOCK or len(old) % BLOCK:
        return
    token = actor.ledger.new(actor.letter)
    at = actor.draw.randrange(0, len(old) // BLOCK) * BLOCK
    actor.give_up(tokens_in(old[at : at + BLOCK]), "map", path)
    fd = os.open(path, os.O_RDWR)
    try:
        if os.fstat(fd).st_size < at + BLOCK:
            return
        actor.give_up(tokens_in(content_behind(fd)[at : at + BLOCK]), "map", path)
        with mmap.mmap(fd, len(old)) as mapping:
            mapping[at : at + BLOCK] = block(token)
            mapping.flush()
        os.fsync(fd)
        actor.keep(fd, path, token, 1)
    finally:
        os.close(fd)


def save(actor: Actor) -> None:
    """As most editors do: under another name, then moved over the old one."""
    path = actor.pick()
    token, blocks = actor.new_content()
    content(path)  # which they have read
    name = actor.draw.choice(TEMPORARY) + b"%d" % actor.draw.randrange(100)
    temporary = os.path.join(os.path.dirname(path), name)
    actor.put(actor.emptied(temporary, 0o600), token, blocks, temporary, True)
    actor.move(temporary, path, "save")


def backed_up_save(actor: Actor) -> None:
    """As others do: the old one is moved away, perhaps removed in the end."""
    path = actor.pick()
    backup = path + b"~"
    token, blocks = actor.new_content()
    content(path)  # which they have read
    if len(os.path.basename(path)) > LONGEST_NAME:
        return
    if os.path.lexists(backup):
        if not is_file(backup):
            return
        if os.path.samestat(os.lstat(path), os.lstat(backup)):
            return
    actor.move(path, backup, "back up")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    actor.put(fd, token, blocks, path, True)
    if actor.draw.random() < 0.5:
        actor.remove(backup, "back up")


def removed_while_open(actor: Actor) -> None:
    """A file is removed, and still written to."""
    path = actor.pick()
    fd = os.open(path, os.O_RDWR)
    try:
        actor.remove(path, "remove while open")
        os.write(fd, FILL * 2 * BLOCK)
        os.ftruncate(fd, BLOCK)  # by a further name others write on behind it
    finally:
        os.close(fd)


def held(actor: Actor) -> None:
    """Write, wait, perhaps rename, write more through the same descriptor."""
    path = actor.pick()
    tokens = actor.ledger.new(actor.letter), actor.ledger.new(actor.letter)
    fd = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(fd, block(tokens[0]))
        time.sleep(actor.draw.random() * 0.3)
        target = actor.new_path()
        if actor.draw.random() < 0.5 and not os.path.lexists(target):
            exclusively_moved(path, target)
        os.write(fd, block(tokens[1]))
        os.fsync(fd)
        if actor.may_be_displaced and os.fstat(fd).st_nlink == 0:
            return
        for token in tokens:
            actor.ledger.wrote(token, 1, path)
    finally:
        os.close(fd)


def read(actor: Actor) -> None:
    """All of a file: nobody has ever written anything but whole blocks."""
    rest = torn(content(actor.pick()))
    if rest:
        actor.record.problem(actor.letter, "torn read", rest[:60])


OPERATIONS: dict[str, tuple[int, Operation]] = {
    "create": (10, create),
    "excl": (6, excl),
    "append": (7, append),
    "overwrite": (6, overwrite),
    "truncate": (2, truncate),
    "punch": (1, punch),
    "mmap": (2, mapped),
    "save": (6, save),
    "bsave": (3, backed_up_save),
    "openunlinked": (1, removed_while_open),
    "held": (2, held),
    "read": (4, read),
}
"""Each with its weight."""
