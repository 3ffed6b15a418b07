"""The program that does many small guarded changes on an SFTP server, under the user's account.

``sftp_program`` sends this text, after those of ``PARTS`` that come before it, to a Python 3.6
or later over an SSH ``exec`` channel; nothing of awayfs is there, so they need the standard library
alone. Frames come on stdin, answers go to stdout:

    frame    length of the rest, number, kind (``HEAD``); what the kind says
    answer   length of the rest, number, status and flags (``HEAD``); what the status says

It takes all requests that are there, works through them together, and answers then:

    1  stage each new content at N, begin to write it back
    2  fsync each, which makes them share a commit of the file system's journal
    3  give names and take names, with the steps and guards of ``sftp_guard``
    4  fsync each directory that changed, once

N and O are the names of ``sftp_guard`` (``.awayfs-<op>.new``, ``.old``). It may die at any point,
and ``sftp_settle`` knows whatever it leaves. What is unusual it leaves to SFTP, by a "no", before
it has touched anything. Once nobody is at the other end of stdin any more, or its *fence* is gone,
it takes no further step: a later session may have done again by then what it was asked.

Directories are walked from the root without following a symlink, and opened once a batch.
"""

# No future annotations, no unions with "|": Python 3.6 reads this.

import hashlib
import os
import select
import sys
import time

from awayfs.remotes.server_batch import Shared
from awayfs.remotes.server_operations import OPERATIONS
from awayfs.remotes.server_steps import (
    AT_ONCE,
    BATCH,
    DIRECTORY,
    DONE,
    HEAD,
    LARGEST_FRAME,
    MORE_COMES_MS,
    MOST_BYTES,
    MOST_REQUESTS,
    MUCH,
    NO,
    ROOT,
    SPENT,
    Fence,
    in_parallel,
)


class Program:
    """Frames in, answers out."""

    def __init__(self, root: bytes) -> None:
        self.root = root
        self._fence = Fence(root)
        status = os.stat(root)
        self._identity = status.st_dev, status.st_ino
        self._unread = b""
        self._poll = select.poll()
        self._hung = select.POLLHUP | select.POLLERR | select.POLLNVAL | 0x2000  # POLLRDHUP
        self._poll.register(0, select.POLLIN | 0x2000)

    def is_left(self) -> bool:
        """Whether nobody is at the other end any more."""
        return any(events & self._hung for _, events in self._poll.poll(0))

    def go_on(self) -> None:
        """Return only if somebody waits for what is done, and it may be done."""
        if self.is_left() or not self._fence.stands():
            self.end()

    def end(self) -> None:
        """At once. What is staged, ``settle`` removes."""
        self.leave()
        os._exit(0)

    def leave(self) -> None:
        """Nothing of it stays: nobody may come again to clear it away."""
        self._fence.remove()

    def serve(self) -> None:
        """Until nobody is there."""
        while True:
            frames = self.gather()
            if self.is_left():
                self.end()
            began = time.monotonic()
            batch, answers = self.work(frames)
            took = int((time.monotonic() - began) * 1000000)
            spent = SPENT.pack(took, batch)
            # first, so that it is known when an answer is read
            write_all(HEAD.pack(5 + len(spent), 0, BATCH) + spent + b"".join(answers))

    def work(self, frames: "list[tuple[int, int, bytes]]") -> "tuple[int, list[bytes]]":
        """A batch, in the directory that stood there at first; another one is SFTP's business."""
        try:
            root = os.open(self.root, DIRECTORY)
        except OSError:
            root = -1
        status = os.fstat(root) if root >= 0 else None
        if status is None or (status.st_dev, status.st_ino) != self._identity:
            if root >= 0:
                os.close(root)
            return 0, [HEAD.pack(5, number, NO) for _, number, _ in frames]
        shared = Shared(root, self._fence, self.go_on)
        answers = self.do(shared, frames)
        return shared.stamp, answers

    def do(self, shared: Shared, frames: "list[tuple[int, int, bytes]]") -> "list[bytes]":
        """All phases; the answers."""
        found = [OPERATIONS[kind](shared, number, body) for kind, number, body in frames]
        try:
            for one in found:
                one.run("stage")
            in_parallel([one.sync_told for one in found if one.syncs and not one.answer])
            for one in found:
                one.run("act")
            shared.directories.sync()
        finally:
            for one in found:
                one.close()
            shared.directories.close()
        return [one.answer for one in found]

    def gather(self) -> "list[tuple[int, int, bytes]]":
        """All requests that are there, at least one, within bounds."""
        frames = []  # type: list[tuple[int, int, bytes]]
        size = read = 0
        while True:
            at = 0
            while len(frames) < MOST_REQUESTS and size < MOST_BYTES:
                if len(self._unread) - at < HEAD.size:
                    break
                length, number, kind = HEAD.unpack_from(self._unread, at)
                if not 5 <= length <= LARGEST_FRAME or kind not in OPERATIONS:
                    sys.stderr.write("not a request\n")
                    self.end()
                if len(self._unread) - at < 4 + length:
                    break
                frames.append((kind, number, self._unread[at + HEAD.size : at + 4 + length]))
                at += 4 + length
                size += length
            self._unread = self._unread[at:]
            full = len(frames) == MOST_REQUESTS or size >= MOST_BYTES
            # What comes through a buffer of sshd's comes in pieces: more are about to come.
            wait_ms = MORE_COMES_MS if self._unread or read >= MUCH else 0
            if full or (frames and not self._poll.poll(wait_ms)):
                return frames
            data = os.read(0, AT_ONCE)
            if not data:
                self.end()
            self._unread += data
            read = len(data)


def write_all(data: bytes) -> None:
    """To whoever asked."""
    while data:
        data = data[os.write(1, data) :]


def read_root() -> bytes:
    """The volume's root, which comes before all frames: its length, and a path."""
    data, length = b"", 0
    while len(data) < ROOT.size + length:
        more = os.read(0, ROOT.size + length - len(data))
        if not more:
            os._exit(0)
        data += more
        if len(data) >= ROOT.size:
            (length,) = ROOT.unpack_from(data)
    return data[ROOT.size :]


def main() -> None:
    """Say that it runs, and serve."""
    if sys.version_info < (3, 6):  # noqa: UP036
        sys.stderr.write("Python 3.6 or later is needed\n")
        return
    hashlib.blake2b(b"", digest_size=32)  # a system may forbid it
    try:
        program = Program(read_root())
        try:
            write_all(HEAD.pack(5, 0, DONE))
            program.serve()
        finally:
            program.leave()
    except BrokenPipeError:
        pass
