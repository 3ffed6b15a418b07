"""What becomes of a record that cannot be sent, though the server is there."""

from __future__ import annotations

import errno
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from awayfs.core.errors import Refused, RemoteError
from awayfs.core.records import Record
from awayfs.volume.context import Context
from awayfs.volume.decided_meanwhile import DecidedMeanwhile
from awayfs.volume.parking import Parking
from awayfs.volume.replay_waits import Waits

NO_SPACE = (errno.ENOSPC, errno.EDQUOT)

log = logging.getLogger(__name__)


class Failures:
    """Notes them. ``tidy`` has nothing stay on the server of what an operation staged."""

    def __init__(
        self,
        context: Context,
        waits: Waits,
        parking: Parking,
        meanwhile: DecidedMeanwhile,
        tidy: Callable[[int], Awaitable[object]],
    ) -> None:
        self._context = context
        self._store = context.store
        self._waits = waits
        self._parking = parking
        self._meanwhile = meanwhile
        self._tidy = tidy

    def make_room(self, error: Exception) -> None:
        """A full disk here must not keep from being sent what frees room then."""
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            self._store.reserve.give_up()

    def note(self, seq: int, error: Exception) -> None:
        """It is tried again later; whoever looks at the file is told why."""
        self._waits.failed(seq)
        record = self._store.journal.get(seq)
        if record is not None:
            code = error.errno if isinstance(error, OSError) and error.errno else errno.EIO
            text = f"its change cannot be sent: {error}"
            self._context.failures.note(record.node, code, text, self._context.now())

    async def refused(self, seq: int, sent: Record | None, error: Refused) -> None:
        """``sent`` is the record as it was then: what it is by now was refused by nobody."""
        if error.errno in NO_SPACE:
            log.warning("the server is full; sending pauses: %s", error)
            self._waits.server_is_full()
            self._waits.add(seq)
            with suppress(RemoteError):  # a part of an upload takes up what is left for others
                await self._tidy(seq)
            return
        try:
            await self._tidy(seq)
        except (RemoteError, OSError) as failed:
            self.note(seq, failed)  # its intent stays, and with it the tidying up
            return
        if sent is not None and self._meanwhile.again(sent):
            self._waits.add(seq)
            return
        self._parking.refused_by_server(seq, error)
