"""What an exported journal says of itself: ``manifest.json`` in the archive.

Names and tokens are bytes, written as base64, so that every name survives; paths are written a
second time as text for those who read it. An archive may come from anywhere: ``checked`` refuses
what could not have been written by an export.
"""

from __future__ import annotations

import msgspec

from awayfs.core.errors import UsageError
from awayfs.core.records import RecordKind
from awayfs.core.types import Kind

FORMAT = 1
NAME = "manifest.json"
README = "README.txt"
LOCAL = "files/"
BASE = "base/"
SIZE_MAX = 256 << 20
"""Most bytes of a manifest: about a million records."""
_NAME_MAX = 255
_OFFSET_MAX = 1 << 62
_NUMBER_MAX = (1 << 32) - 2
_TWO_NAMES = (RecordKind.RENAME, RecordKind.EXCHANGE)
_NAMED = (RecordKind.CREATE, RecordKind.LINK, RecordKind.REMOVE, *_TWO_NAMES)


class BaseFacts(msgspec.Struct, kw_only=True):
    """The revision that a node's changes are based on. ``member``: its content in the archive."""

    path: bytes
    kind: int
    mode: int
    uid: int
    gid: int
    size: int
    mtime_ns: int
    token: bytes
    weak: bool
    file_id: bytes | None = None
    digest: bytes | None = None
    member: str | None = None
    blake2b: str | None = None


class NodeFacts(msgspec.Struct, kw_only=True):
    """A node that records speak of, as it is here. ``ranges`` is what of its content is here."""

    id: int
    kind: int
    mode: int
    uid: int
    gid: int
    rdev: int
    size: int
    mtime_ns: int
    target: bytes | None = None
    path: bytes | None = None
    shown: str = ""
    stored: bool = False
    ranges: list[tuple[int, int]] = []
    member: str | None = None
    blake2b: str | None = None
    base: BaseFacts | None = None


class RecordFacts(msgspec.Struct, kw_only=True):
    """A record (``core.records.Record``)."""

    seq: int
    kind: str
    node: int
    parent: int = 0
    name: bytes = b""
    to_parent: int = 0
    to_name: bytes = b""
    replaced: int = 0
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime_ns: int | None = None
    atime_ns: int | None = None
    xattr_name: bytes = b""
    xattr_value: bytes | None = None
    at_ns: int = 0


class VolumeFacts(msgspec.Struct, kw_only=True):
    """Which volume it is: its URL, the server's identity where it has one, and whose files the
    user's are here.
    """

    url: str
    identity: str | None = None
    uid: int = 0
    gid: int = 0


class Manifest(msgspec.Struct, kw_only=True):
    """All of it."""

    format: int
    volume: VolumeFacts
    host: str
    made_ns: int
    nodes: list[NodeFacts]
    records: list[RecordFacts]


def read(data: bytes) -> Manifest:
    """The manifest in these bytes; UsageError with one line where it is none, or a bad one."""
    try:
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"its {NAME} cannot be read: {error}") from None
    return checked(manifest)


def checked(manifest: Manifest) -> Manifest:
    """The same, if it makes sense."""
    if manifest.format != FORMAT:
        raise UsageError(f"it has format {manifest.format}; this version knows {FORMAT}")
    nodes: dict[int, NodeFacts] = {}
    for node in manifest.nodes:
        _need(node.id > 0 and node.id not in nodes, "a node is in it twice")
        _check_node(node)
        nodes[node.id] = node
    last = 0
    for record in manifest.records:
        _need(record.seq > last, "its records are not in order")
        last = record.seq
        _check_record(record, nodes)
    return manifest


def _check_node(node: NodeFacts) -> None:
    _check_facts(node)
    _need(0 <= node.rdev <= _NUMBER_MAX, f"{node.rdev} is no device")
    _need(node.path is None or _is_inside(node.path), f"the path {node.path!r} leads out")
    _need(node.target is None or b"\0" not in node.target, "a link's target has a NUL")
    _need(node.kind != Kind.SYMLINK or bool(node.target), "a link without a target")
    end = 0
    for start, stop in node.ranges:
        _need(end <= start < stop <= node.size, "a range map contradicts itself")
        end = stop
    _need(node.member is None or node.member.startswith(LOCAL), "a member has a wrong place")
    if node.base is not None:
        _check_facts(node.base)
        _need(bool(node.base.path) or node.base.kind == Kind.DIRECTORY, "a root is no directory")
        _need(_is_inside(node.base.path), f"the path {node.base.path!r} leads out")
        member = node.base.member
        _need(member is None or member.startswith(BASE), "a member has a wrong place")


def _check_facts(facts: NodeFacts | BaseFacts) -> None:
    _need(facts.kind in set(Kind), f"{facts.kind} is no kind of file")
    _need(0 <= facts.size < _OFFSET_MAX, f"{facts.size} is no size")
    _check_attributes(facts.mode, facts.uid, facts.gid, facts.mtime_ns)


def _check_attributes(
    mode: int | None, uid: int | None, gid: int | None, *times: int | None
) -> None:
    _need(mode is None or 0 <= mode <= 0o7777, f"{mode} is no mode")
    for number in (uid, gid):
        _need(number is None or 0 <= number <= _NUMBER_MAX, f"{number} is no user or group")
    for ns in times:
        _need(ns is None or abs(ns) < _OFFSET_MAX, f"{ns} is no time")


def _check_record(record: RecordFacts, nodes: dict[int, NodeFacts]) -> None:
    _need(record.kind in set(RecordKind), f"{record.kind!r} is no kind of record")
    for node in (record.node, record.parent, record.to_parent, record.replaced):
        _need(node == 0 or node in nodes, f"record {record.seq} is about an unknown node")
    _need(record.node != 0, f"record {record.seq} is about nothing")
    names = [(record.parent, record.name), (record.to_parent, record.to_name)]
    for parent, name in names:
        _need(not parent or is_name(name), f"{name!r} is no name")
    _need(b"\0" not in record.xattr_name, "an attribute's name has a NUL")
    _check_attributes(record.mode, record.uid, record.gid, record.mtime_ns, record.atime_ns)
    kind, facts = record.kind, nodes[record.node]
    _need(kind not in _NAMED or bool(record.parent), f"record {record.seq} has no directory")
    _need(kind not in _TWO_NAMES or bool(record.to_parent), f"record {record.seq} leads nowhere")
    _need(kind != RecordKind.SETXATTR or bool(record.xattr_name), "an attribute has no name")
    if kind == RecordKind.STORE:
        kinds = {facts.kind, facts.base.kind if facts.base is not None else facts.kind}
        _need(kinds == {Kind.FILE}, f"record {record.seq} has content for what is no file")


def is_name(name: bytes) -> bool:
    """Whether this can be one component of a path."""
    plain = b"/" not in name and b"\0" not in name and name not in (b"", b".", b"..")
    return plain and len(name) <= _NAME_MAX


def _is_inside(path: bytes) -> bool:
    """Whether a path is relative and does not climb; the root is ``b""``."""
    return path == b"" or all(is_name(part) for part in path.split(b"/"))


def _need(condition: bool, why: str) -> None:
    if not condition:
        raise UsageError(f"its {NAME} is damaged or not ours: {why}")
