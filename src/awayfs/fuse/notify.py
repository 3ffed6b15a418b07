"""Tell the kernel what it must no longer believe.

The kernel may hold a directory's lock that only an answer of ours releases, and takes
that same lock to carry a notification out. So notifications are written by a thread of
their own, never by the event loop; while it waits in the kernel, the loop goes on
answering. Notifications are sent in the order of the calls. They are hints: what the
kernel does not know (ENOENT), it has nothing to forget of.

Source: ``fs/fuse/dev.c`` (fuse_notify), ``fs/fuse/dir.c`` (fuse_reverse_inval_entry).
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import queue
import threading
from collections.abc import Callable

from awayfs.fuse import wire
from awayfs.fuse.wire import Notify

log = logging.getLogger(__name__)

_IGNORED = frozenset({errno.ENOENT, errno.ENODEV, errno.ENOTCONN, errno.EBADF, errno.EPIPE})
_LEFT_ALONE = frozenset({errno.ENOTEMPTY, errno.EBUSY, errno.ENOTDIR, errno.EAGAIN})
"""The name is in use (a mount point, a directory with names in use) and stays."""


class Notifier:
    """Sends notifications for the connection `fd`; every method returns at once.

    `minor` is the negotiated protocol (`Negotiated.minor`). Close it before the
    descriptor is closed.
    """

    def __init__(self, fd: int, *, minor: int = wire.MINOR) -> None:
        self._fd = fd
        self._minor = minor
        self._queue: queue.SimpleQueue[bytes | Callable[[], object] | None] = queue.SimpleQueue()
        self.sent = 0
        """How many notifications the kernel took."""
        self.missed = 0
        """How many it had no use for."""
        self._thread = threading.Thread(target=self._run, name="awayfs-notify", daemon=True)
        self._thread.start()

    # what to tell

    def inval_inode(self, nodeid: int, offset: int = 0, length: int = 0) -> None:
        """Drop the node's cached attributes, and its cached pages from `offset` on.

        `length` is in bytes, 0 for all that follow. A negative `offset` keeps the pages.
        For a directory, `offset` 0 drops its cached listing; for a symlink, its target.
        """
        self._put(
            Notify.INVAL_INODE, wire.NOTIFY_INVAL_INODE_OUT.struct.pack(nodeid, offset, length)
        )

    def inval_entry(self, parent: int, name: bytes, *, expire_only: bool = False) -> None:
        """Forget that `parent` has `name`, or that it has not; and the parent's attributes.

        With `expire_only` (if `Negotiated.expire_only`), have it looked up again at its
        next use, without taking it from those who use it now.
        """
        flags = wire.EXPIRE_ONLY if expire_only else 0
        head = wire.NOTIFY_INVAL_ENTRY_OUT.struct.pack(parent, len(name), flags)
        self._put(Notify.INVAL_ENTRY, head, name, b"\0")

    def poll_wakeup(self, kh: int) -> None:
        """Have those who wait in poll(2) ask again; `kh` came in a Poll request."""
        self._put(Notify.POLL, wire.NOTIFY_POLL_OUT.struct.pack(kh))

    def bump_epoch(self) -> bool:
        """Have every name looked up again at its next use. False before 7.44."""
        if self._minor < 44:
            return False
        self._put(Notify.INC_EPOCH)
        return True

    # life

    async def drain(self) -> None:
        """Wait until what was asked for before this call has been sent."""
        if not self._thread.is_alive():
            return
        loop = asyncio.get_running_loop()
        reached = asyncio.Event()
        self._queue.put(lambda: loop.call_soon_threadsafe(reached.set))
        await reached.wait()

    def close(self, timeout: float = 5.0) -> None:
        """End the thread after what is queued, waiting at most `timeout` seconds for it."""
        self._queue.put(None)
        self._thread.join(timeout)

    def _put(self, code: Notify, *parts: bytes) -> None:
        size = wire.OUT_HEADER.size + sum(map(len, parts))
        header = wire.OUT_HEADER.struct.pack(size, code, 0)
        self._queue.put(b"".join((header, *parts)))

    # the thread

    def _run(self) -> None:
        while (item := self._queue.get()) is not None:
            if isinstance(item, bytes):
                self._send(item)
            else:
                item()

    def _send(self, message: bytes) -> None:
        try:
            os.write(self._fd, message)
            self.sent += 1
        except OSError as error:
            self.missed += 1
            if error.errno not in _IGNORED | _LEFT_ALONE:
                code = wire.OUT_HEADER.unpack(message)["error"]
                log.warning("notification %s refused: %s", Notify(code).name, error.strerror)
