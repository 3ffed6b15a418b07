"""What the daemon and a worker process say to each other, and how it is framed.

A frame is a length (u32, little endian) and a MessagePack document. A call that needs a file
descriptor sends it along as SCM_RIGHTS (unix(7)) with the first byte of its frame; frames and
descriptors arrive in the order they were sent, and ``Request.descriptors`` says how many
belong to a frame.

    daemon → worker    Open (once), Limits, Request, Cancel
    worker → daemon    Part* then Answer or Failure, and Ticks, for each request; Lost

Every class below with a ``run`` is one method of ``Remote``: its fields are the arguments,
``Result`` is the type of the answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec

from awayfs.core.types import (
    Attributes,
    Committed,
    Digest,
    Entry,
    Expected,
    Kind,
    Mismatch,
    Outcome,
    Space,
)
from awayfs.ports.remote import Connected, Fetched, Intent, Landed, Listing, Piece, Put, Remote
from awayfs.remotes.failures import Failure, error_of, failure_of

LIST_PART = 512
"""Entries in one frame of a listing: decoding one must not keep the event loop."""

LARGEST_FRAME = 64 << 20

SMALL_STAGE = 64 << 10
"""Bytes of an upload that counts as a step among others, and not as a transfer."""


class Call(msgspec.Struct, frozen=True, array_like=True):
    """One method of ``Remote`` with its arguments."""

    Result: ClassVar[Any] = None
    Part: ClassVar[Any] = None  # of a value that may come in several frames
    bulk: ClassVar[bool] = False  # moves content: few at a time
    background: ClassVar[bool] = False  # has few slots of its own: nobody waits for it

    @property
    def sends(self) -> bool:
        """A step of a change of ours: over a long link it has slots of its own, of which there are
        many, since what they cost there is round trips."""
        return False

    async def run(self, remote: Remote, fds: list[int]) -> Any:
        """Call the method on ``remote``; the value is sent as ``Result``."""
        raise NotImplementedError

    @classmethod
    def joined(cls, parts: list[Any], last: Any) -> Any:
        """The value that came as ``parts`` before the answer ``last``."""
        return parts + last


class Ended(msgspec.Struct, frozen=True, array_like=True):
    """An ``Outcome`` on its way."""

    committed: bool
    entry: Entry | None

    @classmethod
    def of(cls, outcome: Outcome) -> Ended:
        """Pack."""
        if isinstance(outcome, Committed):
            return cls(True, outcome.entry)
        return cls(False, outcome.current)

    def outcome(self) -> Outcome:
        """Unpack."""
        return Committed(self.entry) if self.committed else Mismatch(self.entry)


class Tried(msgspec.Struct, frozen=True, array_like=True):
    """What came of one of several: an ``Outcome``, or what it raised."""

    ended: Ended | None
    failure: Failure | None = None

    @classmethod
    def of(cls, outcome: Outcome | Exception) -> Tried:
        """Pack."""
        if isinstance(outcome, Exception):
            return cls(None, failure_of(0, outcome))
        return cls(Ended.of(outcome))

    def outcome(self) -> Outcome | Exception:
        """Unpack."""
        if self.failure is not None:
            return error_of(self.failure)
        if self.ended is None:
            raise msgspec.ValidationError("neither an outcome nor a failure")
        return self.ended.outcome()


class _Sending(Call, frozen=True):
    @property
    def sends(self) -> bool:
        return True


class ConnectCall(Call, frozen=True, tag="connect"):
    witnesses: tuple[bytes, ...]
    Result = Connected

    async def run(self, remote: Remote, fds: list[int]) -> Connected:
        return await remote.connect(self.witnesses)


class CloseCall(Call, frozen=True, tag="close"):
    async def run(self, remote: Remote, fds: list[int]) -> None:
        await remote.close()


class ProbeCall(Call, frozen=True, tag="probe"):
    async def run(self, remote: Remote, fds: list[int]) -> None:
        await remote.probe()


class StatCall(Call, frozen=True, tag="stat"):
    path: bytes
    Result = Entry

    async def run(self, remote: Remote, fds: list[int]) -> Entry:
        return await remote.stat(self.path)


class ListCall(Call, frozen=True, tag="list"):
    path: bytes
    Result = list[Entry]
    Part = list[Entry]

    async def run(self, remote: Remote, fds: list[int]) -> list[Entry]:
        return await remote.list(self.path)


class ListUnlessCall(Call, frozen=True, tag="list_unless"):
    path: bytes
    fingerprint: bytes
    Result = Listing
    Part = list[Entry]

    async def run(self, remote: Remote, fds: list[int]) -> Listing:
        return await remote.list_unless(self.path, self.fingerprint)

    @classmethod
    def joined(cls, parts: list[Any], last: Any) -> Any:
        return Listing(last.fingerprint, last.if_strong, parts + (last.entries or []))


class FetchCall(Call, frozen=True, tag="fetch"):
    path: bytes
    offset: int
    length: int
    Result = Fetched
    bulk = True

    async def run(self, remote: Remote, fds: list[int]) -> Fetched:
        return await remote.fetch(self.path, self.offset, self.length, fds[0])


class FetchManyCall(Call, frozen=True, tag="fetch_many"):
    pieces: list[Piece]
    Result = list[Landed | None]
    Part = list[Landed | None]
    background = True

    async def run(self, remote: Remote, fds: list[int]) -> Sequence[Landed | None]:
        return await remote.fetch_many(self.pieces, fds[0])


class DigestCall(Call, frozen=True, tag="digest"):
    path: bytes
    Result = Digest
    bulk = True

    @property
    def sends(self) -> bool:
        return True  # it decides about a change; how many bytes come at once, the adapter bounds

    async def run(self, remote: Remote, fds: list[int]) -> Digest:
        return await remote.digest(self.path)


class StageCall(Call, frozen=True, tag="stage"):
    op: str
    directory: bytes
    size: int
    attributes: Attributes
    start: int
    token: bytes
    Result = Entry
    bulk = True

    @property
    def sends(self) -> bool:
        return self.size <= SMALL_STAGE

    async def run(self, remote: Remote, fds: list[int]) -> Entry:
        given = self.size, self.attributes, self.start, self.token
        return await remote.stage(self.op, self.directory, fds[0], *given)


class StagePartCall(Call, frozen=True, tag="stage_part"):
    op: str
    directory: bytes
    start: int
    end: int
    token: bytes
    Result = Entry | None
    bulk = True

    async def run(self, remote: Remote, fds: list[int]) -> Entry | None:
        given = self.start, self.end, self.token
        return await remote.stage_part(self.op, self.directory, fds[0], *given)


class ReplaceCall(_Sending, frozen=True, tag="replace"):
    op: str
    path: bytes
    expected: Expected
    Result = Ended

    async def run(self, remote: Remote, fds: list[int]) -> Ended:
        return Ended.of(await remote.replace(self.op, self.path, self.expected))


class PutCall(_Sending, frozen=True, tag="put"):
    op: str
    path: bytes
    content: bytes
    attributes: Attributes
    expected: Expected
    Result = Ended
    bulk = True

    async def run(self, remote: Remote, fds: list[int]) -> Ended:
        given = self.path, self.content, self.attributes, self.expected
        return Ended.of(await remote.put(self.op, *given))


class PutManyCall(_Sending, frozen=True, tag="put_many"):
    puts: tuple[Put, ...]
    Result = tuple[Tried, ...]
    bulk = True

    async def run(self, remote: Remote, fds: list[int]) -> tuple[Tried, ...]:
        return tuple(map(Tried.of, await remote.put_many(self.puts)))


class DiscardCall(_Sending, frozen=True, tag="discard_staged"):
    op: str
    directory: bytes

    async def run(self, remote: Remote, fds: list[int]) -> None:
        await remote.discard_staged(self.op, self.directory)


class MakeCall(_Sending, frozen=True, tag="make"):
    op: str
    path: bytes
    kind: Kind
    attributes: Attributes
    target: bytes
    rdev: int
    Result = Ended

    async def run(self, remote: Remote, fds: list[int]) -> Ended:
        return Ended.of(
            await remote.make(
                self.op, self.path, self.kind, self.attributes, self.target, self.rdev
            )
        )


class LinkCall(_Sending, frozen=True, tag="link"):
    op: str
    source: bytes
    path: bytes
    Result = Ended

    async def run(self, remote: Remote, fds: list[int]) -> Ended:
        return Ended.of(await remote.link(self.op, self.source, self.path))


class RemoveCall(_Sending, frozen=True, tag="remove"):
    op: str
    path: bytes
    expected: Expected
    Result = Ended

    async def run(self, remote: Remote, fds: list[int]) -> Ended:
        return Ended.of(await remote.remove(self.op, self.path, self.expected))


class RenameCall(_Sending, frozen=True, tag="rename"):
    op: str
    source: bytes
    path: bytes
    source_expected: Expected
    path_expected: Expected
    Result = Ended

    async def run(self, remote: Remote, fds: list[int]) -> Ended:
        return Ended.of(
            await remote.rename(
                self.op, self.source, self.path, self.source_expected, self.path_expected
            )
        )


class ExchangeCall(_Sending, frozen=True, tag="exchange"):
    op: str
    a: bytes
    b: bytes
    a_expected: Expected
    b_expected: Expected
    Result = Ended

    async def run(self, remote: Remote, fds: list[int]) -> Ended:
        return Ended.of(
            await remote.exchange(self.op, self.a, self.b, self.a_expected, self.b_expected)
        )


class SetAttributesCall(_Sending, frozen=True, tag="set_attributes"):
    path: bytes
    attributes: Attributes
    expected: Expected
    Result = Ended

    async def run(self, remote: Remote, fds: list[int]) -> Ended:
        return Ended.of(await remote.set_attributes(self.path, self.attributes, self.expected))


class XattrsCall(Call, frozen=True, tag="xattrs"):
    path: bytes
    Result = dict[bytes, bytes]

    async def run(self, remote: Remote, fds: list[int]) -> dict[bytes, bytes]:
        return await remote.xattrs(self.path)


class SetXattrCall(_Sending, frozen=True, tag="set_xattr"):
    path: bytes
    name: bytes
    value: bytes | None
    expected: Expected | None
    Result = Ended

    async def run(self, remote: Remote, fds: list[int]) -> Ended:
        called = remote.set_xattr(self.path, self.name, self.value, self.expected)
        return Ended.of(await called)


class SpaceCall(Call, frozen=True, tag="space"):
    Result = Space

    async def run(self, remote: Remote, fds: list[int]) -> Space:
        return await remote.space()


class SettleCall(_Sending, frozen=True, tag="settle"):
    intent: Intent

    async def run(self, remote: Remote, fds: list[int]) -> None:
        await remote.settle(self.intent)


AnyCall = (
    ConnectCall
    | CloseCall
    | ProbeCall
    | StatCall
    | ListCall
    | ListUnlessCall
    | FetchCall
    | FetchManyCall
    | DigestCall
    | StageCall
    | StagePartCall
    | ReplaceCall
    | PutCall
    | PutManyCall
    | DiscardCall
    | MakeCall
    | LinkCall
    | RemoveCall
    | RenameCall
    | ExchangeCall
    | SetAttributesCall
    | XattrsCall
    | SetXattrCall
    | SpaceCall
    | SettleCall
)


class Open(msgspec.Struct, frozen=True, array_like=True, tag="open"):
    """The first frame: what to serve. Secrets are here, never in arguments or environment."""

    url: str
    options: dict[str, str]


class Limits(msgspec.Struct, frozen=True, array_like=True, tag="limits"):
    """Bytes of content a second at most from now on (``pacing``)."""

    up: int | None
    down: int | None


class Request(msgspec.Struct, frozen=True, array_like=True, tag="request"):
    """Run a call; ``unasked`` when nobody waits for it (``pacing``)."""

    id: int
    call: AnyCall
    descriptors: int = 0
    unasked: bool = False


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """Stop working on a request; it still ends with an Answer or a Failure."""

    id: int


class Part(msgspec.Struct, frozen=True, array_like=True, tag="part"):
    """Some of a listing; more, or the Answer with the rest, follows."""

    id: int
    value: msgspec.Raw


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """The value of a call, encoded as its ``Result``."""

    id: int
    value: msgspec.Raw


class Tick(msgspec.Struct, frozen=True, array_like=True, tag="tick"):
    """Something moved; the next step may take ``allow`` seconds (0: the usual)."""

    id: int
    allow: float


class Lost(msgspec.Struct, frozen=True, array_like=True, tag="lost"):
    """The connection to the server has ended by itself; there may be no request to tell it to."""

    why: str


ToWorker = Open | Limits | Request | Cancel
FromWorker = Part | Answer | Failure | Tick | Lost

encode = msgspec.msgpack.Encoder().encode
decode_to_worker = msgspec.msgpack.Decoder(ToWorker).decode
decode_from_worker = msgspec.msgpack.Decoder(FromWorker).decode
