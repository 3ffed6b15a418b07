"""Staged files that nobody needs any more: found in listings, and removed.

A session that was frozen may wake up when its work was done again by another one, and still
make the staged file that it was asked for. Only files staged by this client are looked at, and
only those whose operation is settled: no record of the journal has it for its own.
"""

from __future__ import annotations

import logging

from awayfs.core.errors import RemoteError
from awayfs.core.records import Record
from awayfs.core.types import Entry, Kind, OpId, RemotePath
from awayfs.ports.remote import STAGED_PREFIX, STAGED_SUFFIX
from awayfs.volume.context import Context
from awayfs.volume.op_ids import base36

log = logging.getLogger(__name__)


class Strays:
    """Sifts listings. ``client`` is the beginning of every operation id of ours."""

    def __init__(self, context: Context, client: str) -> None:
        self._context = context
        self._client = client
        self._prefix = STAGED_PREFIX + client.encode("ascii")

    async def listed(self, path: RemotePath) -> list[Entry]:
        """A directory's entries, without what we staged; raises ``RemoteError``."""
        entries = await self._context.link.call(lambda remote: remote.list(path))
        staged = [entry for entry in entries if self._is_ours(entry.name)]
        if not staged:
            return entries
        await self._reap(path, staged)
        return [entry for entry in entries if not self._is_ours(entry.name)]

    def _is_ours(self, name: bytes) -> bool:
        return name.startswith(self._prefix) and name.endswith(STAGED_SUFFIX)

    async def _reap(self, path: RemotePath, staged: list[Entry]) -> None:
        records = self._context.store.journal.all()
        for entry in staged:
            op = entry.name[len(STAGED_PREFIX) : -len(STAGED_SUFFIX)].decode("ascii")
            if entry.kind is not Kind.FILE or any(self._may_be_of(op, r) for r in records):
                continue
            log.info("reaping %r, left by a session that was given up", entry.name)
            try:
                await self._context.link.call(
                    lambda remote, op=op: remote.discard_staged(op, path)  # type: ignore[misc]
                )
            except RemoteError as error:
                log.warning("%r stays: %s", entry.name, error)

    def _may_be_of(self, op: OpId, record: Record) -> bool:
        """Whether a record has this operation, or one that goes with it (see ``op_ids``)."""
        rest = op.removeprefix(self._client)
        number = base36(record.seq)
        return rest.startswith((number, f"r{number}d", f"m{record.seq}"))
