"""What the requests of one batch have in common; part of ``server_program``."""

# Runs on the server: see ``server_program``. No future annotations, no "|": Python 3.6 reads this.

import os
import struct
import sys
from typing import Callable  # noqa: UP035

from awayfs.remotes.server_steps import (  # it is sent before this one
    FAILED,
    HEAD,
    MISMATCH,
    NO,
    SPACE,
    UNKNOWN,
    Directories,
    Fence,
    Unusual,
    entry_at,
    shown_seconds,
)


class Shared:
    """What the operations of one batch have in common. ``go_on`` returns only if this program may
    still act: it is asked before each step that gives a name or takes one.
    """

    def __init__(self, root: int, fence: Fence, go_on: "Callable[[], None]") -> None:
        self.directories = Directories(root)
        self.fence = fence
        self.go_on = go_on
        self.stamp = 0

    def learn(self, fd: int) -> None:
        """What the server's clock says, from a file that was written just now."""
        if not self.stamp:
            self.stamp = shown_seconds(os.fstat(fd))


class Operation:
    """One request on its way through a batch; ``answer`` is set as soon as there is one."""

    syncs = False

    def __init__(self, shared: Shared, number: int) -> None:
        self.shared = shared
        self.number = number
        self.answer = b""
        self.half_done = False

    def tell(self, status: int, body: bytes = b"") -> None:
        """This is the answer."""
        self.answer = HEAD.pack(5 + len(body), self.number, status) + body

    def at(self, path: bytes) -> "tuple[int, bytes]":
        """The open directory of a path, and its name there."""
        above, _, name = path.rpartition(b"/")
        return self.shared.directories.of(above), name

    def changes(self, directory: int) -> None:
        """A name there changes: it is synced at the end."""
        self.shared.directories.changed[directory] = None

    def mismatch(self, directory: int, name: bytes, flags: int = 0) -> None:
        """What stands there is not what was expected."""
        self.tell(MISMATCH | flags, entry_at(directory, name))

    def stage(self) -> None:
        """Phase 1."""

    def sync(self) -> None:
        """Phase 2."""

    def act(self) -> None:
        """Phase 3."""

    def run(self, step: str) -> None:
        """One phase; whatever goes wrong in it is told."""
        if self.answer:
            return
        try:
            getattr(self, step)()
        except (Unusual, OSError) as error:
            code = getattr(error, "errno", None)
            if self.answer or self.half_done:  # only tidying up failed, so that something is left
                self.tell(UNKNOWN)
            elif code in SPACE:
                self.tell(FAILED, struct.pack(">I", code))
            else:
                self.tell(NO)
        except Exception as error:
            sys.stderr.write("%s: %s: %s\n" % (step, type(error).__name__, error))  # noqa: UP031
            self.tell(UNKNOWN)

    def sync_told(self) -> None:
        """Phase 2, in whatever thread."""
        self.run("sync")

    def close(self) -> None:
        """Nothing is open any more."""
