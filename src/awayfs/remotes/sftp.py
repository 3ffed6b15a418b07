"""``sftp://``: a volume on an SSH server, spoken to in SFTP version 3.

Reading order: ``sftp_connection`` (who we talk to), ``sftp_packets``, ``sftp_wire`` and
``sftp_channel`` (requests), ``sftp_clock`` (when a token is strong), ``sftp_paths`` (staying
inside), ``sftp_view`` (looking), ``sftp_transfer`` with ``sftp_window``, ``sftp_stagers`` and
``sftp_staged`` (content), ``sftp_small`` (many small files), ``sftp_revisions``, ``sftp_moves``,
``sftp_syncs``, ``sftp_guard`` and ``sftp_settle`` (mutations that could destroy something),
``sftp_changes`` (those that cannot), ``sftp_program`` with ``sftp_by_program`` (all that in one
request, where ``server_program`` may run on the server), ``sftp_parts`` (all put together),
``sftp_errors``, ``sftp_entries``.

Sources: draft-ietf-secsh-filexfer-02 and OpenSSH's PROTOCOL. What v3 lacks is said by
``Capabilities``: no file ids, tokens of whole seconds, no xattrs, no special files.

Options: ``identity``, ``known_hosts``, ``ssh_config`` (files), ``host_key_alias``,
``connect_timeout``, ``stall_timeout`` (seconds), ``server_program`` (``auto``: where it may run).
Others are not ours and ignored.

Honest limits. OpenSSH ends a listing the same way when readdir(3) fails as when it is done,
and leaves out names whose lstat(2) fails; a directory that may not be searched is noticed
(``sftp_view``), single names are not. Before a name counts as removed, ``stat`` has to say so.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from msgspec.structs import replace

from awayfs.core.errors import NotFound, Refused, Unreachable
from awayfs.core.types import (
    Attributes,
    Digest,
    Entry,
    Expected,
    Kind,
    OpId,
    Outcome,
    RemotePath,
    Space,
)
from awayfs.ports.remote import (
    Connected,
    Fetched,
    Intent,
    Landed,
    Listing,
    Piece,
    Put,
)
from awayfs.remotes import progress
from awayfs.remotes.fingerprint import listing
from awayfs.remotes.names import staged_name
from awayfs.remotes.putting import put_each, put_in_steps
from awayfs.remotes.sftp_arrival import Arrival
from awayfs.remotes.sftp_capabilities import capabilities, is_root
from awayfs.remotes.sftp_connection import (
    CONNECT_TIMEOUT_S,
    LOGIN_TIMEOUT_S,
    STALL_TIMEOUT_S,
    Location,
    Session,
    open_session,
)
from awayfs.remotes.sftp_entries import join, parent
from awayfs.remotes.sftp_errors import Unsupported
from awayfs.remotes.sftp_parts import Parts, assemble
from awayfs.remotes.sftp_paths import check
from awayfs.remotes.sftp_program import Program
from awayfs.remotes.sftp_transfer import Begun
from awayfs.remotes.sftp_window import Way, first_window

UNKNOWN_SPACE = Space(4096, 1 << 40, 1 << 39, 1 << 39, 1 << 32, 1 << 31)
"""Where the server does not tell: large enough to stand in nobody's way."""


class SftpRemote:
    """One directory of an SSH server; implements ``ports.remote.Remote``.

    ``on_progress`` is called for each chunk moved and each block of a listing.
    """

    def __init__(self, url: Location, options: Mapping[str, str]) -> None:
        self._url = url
        self._options = dict(options)
        self._open: Parts | None = None
        self._own_uids: dict[tuple[str, str], int] = {}
        self._way: Way | None = None  # of this session, or the last one
        self._may_run = self._options.get("server_program", "never") == "auto"
        self.on_progress: Callable[[], None] = _nothing

    async def connect(self, witnesses: Sequence[RemotePath] = ()) -> Connected:
        """Open the session (again); what ran on the old one ends with ``Unreachable``."""
        await self.close()
        limit = float(self._options.get("connect_timeout", CONNECT_TIMEOUT_S))
        self._tick(limit + 2 * LOGIN_TIMEOUT_S)
        program = self._program()
        begin = program.begin if self._may_run else _nothing
        look = Arrival(self._client, witnesses, self._tick).look
        try:
            session, arrived = await open_session(self._url, self._options, begin, look)
        except BaseException:
            program.close()
            raise
        self._open = assemble(session, arrived.fsid, program, self._client, self._tick)
        way = Way(session.addresses, arrived.took_s)
        first = first_window(way, self._way)
        self._way = replace(way, borne=2 * first)  # should nobody try what it bears
        program.settle_at(session.root, session.quick, first)
        return Connected(
            capabilities=capabilities(session),
            root=arrived.root,
            identity=session.fingerprint.encode() + b" " + session.root,
            own_uid=self._own_uids.get(_login(session)),
            addresses=session.addresses,
            seen=arrived.seen,
            account=f"{session.user}@{self._url.host}",
        )

    @property
    def _client(self) -> str:
        return self._options.get("client", "")

    def _program(self) -> Program:
        stall_s = float(self._options.get("stall_timeout", STALL_TIMEOUT_S))

        def dies() -> None:
            self._may_run = False  # one that dies each time would end each session

        return Program(self._client, stall_s, self._stamped, dies)

    def _stamped(self, mtime: int, received_ns: int) -> None:
        if self._open is not None:
            self._open.session.clock.stamped(mtime, received_ns)

    def _tick(self, allow: float) -> None:
        self.on_progress()
        progress.tick(allow)

    @property
    def _parts(self) -> Parts:
        if self._open is None:
            raise Unreachable("not connected")
        return self._open

    async def close(self) -> None:
        """Drop the session; never raises."""
        parts, self._open = self._open, None
        if parts is not None:
            parts.by_program.program.close()
            if (uid := parts.own_uid) is not None:
                self._own_uids = {_login(parts.session): uid}
            window = parts.by_program.program.window
            if self._way is not None and window.is_tried:
                self._way = replace(self._way, borne=window.allowed)
            await parts.session.close()

    def _at(self, *paths: RemotePath) -> _Inside:
        """The parts, for a call about ``paths``, which are checked to lie inside the volume."""
        return _Inside(self, paths)

    async def probe(self) -> None:
        """Whether the root still is the directory that we connected to."""
        await self._parts.paths.root_is_there()

    async def stat(self, path: RemotePath) -> Entry:
        """See the port. One round trip, two for a symlink."""
        inside = self._at(path)
        look = self._parts.view.look(path)  # counts only if the directory is the one it should be
        async with inside as parts:
            return await parts.view.seen(look)

    async def list(self, path: RemotePath) -> list[Entry]:
        """See the port, and the limits at the head of the module."""
        async with self._at(path) as parts:
            await parts.paths.inside(path)
            return await parts.view.list(path)

    async def list_unless(self, path: RemotePath, fingerprint: bytes) -> Listing:
        """See the port."""
        return listing(await self.list(path), fingerprint)

    async def fetch(self, path: RemotePath, offset: int, length: int, fd: int) -> Fetched:
        """See the port. The entry is that of the open file."""
        async with self._at(path) as parts:
            return await parts.transfer.fetch(path, offset, length, fd)

    async def fetch_many(self, pieces: Sequence[Piece], fd: int) -> Sequence[Landed | None]:
        """See the port and ``sftp_small``."""
        parts = self._parts
        small = await parts.session.small_files(parts.paths)
        if small is None:
            return [None] * len(pieces)
        return await small.fetch(pieces, fd, self._tick)

    async def digest(self, path: RemotePath) -> Digest:
        """See the port. Over SFTP the whole file comes over the wire: v3 cannot hash."""
        inside = self._at(path)
        digest = await self._parts.by_program.digest(path)
        if digest is None:
            async with inside as parts:
                digest = await parts.transfer.digest(path)
        self._parts.contents.note(path, digest)
        return digest

    async def stage(
        self,
        op: OpId,
        directory: RemotePath,
        fd: int,
        size: int,
        attributes: Attributes,
        start: int = 0,
        token: bytes = b"",
    ) -> Entry:
        """See the port. Durable where the server offers fsync@openssh.com."""
        staged = join(directory, staged_name(op))
        async with self._at(staged) as parts:
            may_chown = is_root(parts.session)
            there = Begun(start, token)
            parts.staged.forget(staged)
            with parts.stagers.one(size) as transfer:
                entry = await transfer.stage(staged, fd, size, attributes, may_chown, there)
            parts.staged.note(staged, entry)
            return entry

    async def stage_part(
        self, op: OpId, directory: RemotePath, fd: int, start: int, end: int, token: bytes = b""
    ) -> Entry | None:
        """See the port. Durable where the server offers fsync@openssh.com."""
        staged = join(directory, staged_name(op))
        async with self._at(staged) as parts:
            parts.staged.forget(staged)
            return await parts.transfer.stage_part(staged, fd, end, Begun(start, token))

    async def replace(self, op: OpId, path: RemotePath, expected: Expected) -> Outcome:
        """See the port and ``sftp_guard``. Of a weak revision, ask for the digest first."""
        _not_the_root(path)
        async with self._at(path) as parts:
            return await parts.guarded.replace(op, path, expected)

    async def put(
        self,
        op: OpId,
        path: RemotePath,
        content: bytes,
        attributes: Attributes,
        expected: Expected,
    ) -> Outcome:
        """See the port."""
        _not_the_root(path)
        check(path)
        given = path, content, attributes, expected
        if (outcome := await self._parts.by_program.put(op, *given)) is not None:
            return outcome
        return await put_in_steps(self, op, *given)

    async def put_many(self, puts: Sequence[Put]) -> Sequence[Outcome | Exception]:
        """See the port."""
        return await put_each(self, puts)

    async def discard_staged(self, op: OpId, directory: RemotePath) -> None:
        """See the port."""
        staged = join(directory, staged_name(op))
        try:
            async with self._at(staged) as parts:
                await parts.by_program.over(op)
                parts.staged.forget(staged)
                await parts.session.quick.unlink(staged)
        except NotFound:
            pass

    async def make(
        self,
        op: OpId,
        path: RemotePath,
        kind: Kind,
        attributes: Attributes,
        target: bytes = b"",
        rdev: int = 0,
    ) -> Outcome:
        """See the port: directories and symlinks."""
        inside = self._at(path)
        if kind is Kind.DIRECTORY:
            made = await self._parts.by_program.make(op, path, attributes)
            if made is not None:
                return made
        async with inside as parts:
            outcome = await parts.changes.make(op, path, kind, attributes, target)
            await parts.syncs.sync(parent(path))
            return outcome

    async def link(self, op: OpId, source: RemotePath, path: RemotePath) -> Outcome:
        """See the port."""
        async with self._at(source, path) as parts:
            outcome = await parts.changes.link(source, path)
            await parts.syncs.sync(parent(path))
            return outcome

    async def remove(self, op: OpId, path: RemotePath, expected: Expected) -> Outcome:
        """See the port and ``sftp_guard``."""
        _not_the_root(path)
        inside = self._at(path)
        if (outcome := await self._parts.by_program.remove(op, path, expected)) is not None:
            return outcome
        async with inside as parts:
            return await parts.guarded.remove(op, path, expected)

    async def rename(
        self,
        op: OpId,
        source: RemotePath,
        path: RemotePath,
        source_expected: Expected,
        path_expected: Expected,
    ) -> Outcome:
        """See the port and ``sftp_guard``."""
        _not_the_root(source, path)
        inside, given = self._at(source, path), (source, path, source_expected, path_expected)
        if (outcome := await self._parts.by_program.rename(op, *given)) is not None:
            return outcome
        async with inside as parts:
            return await parts.guarded.rename(op, *given)

    async def exchange(
        self,
        op: OpId,
        a: RemotePath,
        b: RemotePath,
        a_expected: Expected,
        b_expected: Expected,
    ) -> Outcome:
        """See the port and ``sftp_exchange``: only taken aside, never in one step."""
        _not_the_root(a, b)
        async with self._at(a, b) as parts:
            return await parts.exchanger.take_aside(op, a, b, a_expected, b_expected)

    async def set_attributes(
        self, path: RemotePath, attributes: Attributes, expected: Expected
    ) -> Outcome:
        """See the port and ``sftp_changes``."""
        async with self._at(path) as parts:
            return await parts.changes.set_attributes(path, attributes, expected)

    async def xattrs(self, path: RemotePath) -> dict[bytes, bytes]:
        """Not in SFTP v3: none."""
        return {}

    async def set_xattr(
        self, path: RemotePath, name: bytes, value: bytes | None, expected: Expected | None
    ) -> Outcome:
        """Not in SFTP v3."""
        raise Refused(errno.EOPNOTSUPP, "SFTP has no extended attributes")

    async def space(self) -> Space:
        """statvfs@openssh.com, else ``UNKNOWN_SPACE``."""
        try:
            told = await self._parts.session.quick.statvfs(b"")
        except Unsupported:
            return UNKNOWN_SPACE
        return Space(
            block_size=told.frsize or told.bsize or 4096,
            blocks=told.blocks,
            blocks_free=told.bfree,
            blocks_available=told.bavail,
            files=told.files,
            files_free=told.ffree,
            name_max=min(told.namemax or 255, 255),
        )

    async def settle(self, intent: Intent) -> None:
        """See the port; half-done states are in ``sftp_settle`` and ``sftp_exchange``."""
        check(intent.path, intent.other_path or b"")
        parts = self._parts
        for path in (intent.path, intent.other_path or b""):
            parts.staged.forget(join(parent(path), staged_name(intent.op)))
        await parts.by_program.over(intent.op)
        await (parts.exchanger if intent.crossing else parts.settler).settle(intent)


class _Inside:
    """``async with``: the parts of a session, for a call about some paths.

    What is absent, by what the call says, counts only below a root that is there.
    """

    __slots__ = ("_parts", "_paths")

    def __init__(self, remote: SftpRemote, paths: Sequence[RemotePath]) -> None:
        check(*paths)
        self._paths = paths
        self._parts = remote._parts

    async def __aenter__(self) -> Parts:
        try:
            for path in self._paths:
                await self._parts.paths.inside(parent(path))
        except NotFound:
            await self._parts.paths.root_is_there()
            raise
        return self._parts

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        if kind is not None and issubclass(kind, NotFound):
            await self._parts.paths.root_is_there()


def _nothing(*_told: object) -> None:
    """Nobody listens."""


def _not_the_root(*paths: RemotePath) -> None:
    if b"" in paths:
        raise Refused(errno.EBUSY, "the volume's root stays where it is")


def _login(session: Session) -> tuple[str, str]:
    """Who we are, and where: the ``User`` of an SSH configuration may be another one by now."""
    return session.user, session.fingerprint
