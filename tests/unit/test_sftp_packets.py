"""Packets of SFTP, against asyncssh's own, and as hostile servers send them."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable

import pytest
from asyncssh.packet import SSHPacket, String, UInt32
from asyncssh.sftp import SFTPAttrs, SFTPLimits, SFTPName, SFTPVFSAttrs
from hypothesis import given
from hypothesis import strategies as st

from awayfs.core.errors import Implausible
from awayfs.remotes import sftp_packets as packets
from awayfs.remotes.sftp_packets import Attributes

NUMBER = st.integers(0, 2**32 - 1)
LARGE = st.integers(0, 2**64 - 1)
PAIR = st.none() | st.tuples(NUMBER, NUMBER)


@st.composite
def _attributes(draw: st.DrawFn) -> Attributes:
    owner, times = draw(PAIR) or (None, None), draw(PAIR) or (None, None)
    mode = draw(st.none() | st.integers(0, 0xFFFF))
    return Attributes(draw(st.none() | LARGE), *owner, mode, *times)


ATTRIBUTES = _attributes()
USUAL = st.builds(Attributes, LARGE, NUMBER, NUMBER, st.integers(0, 0xFFFF), NUMBER, NUMBER)
NAMES = st.lists(
    st.tuples(st.binary(max_size=300), st.binary(max_size=300), USUAL | ATTRIBUTES), max_size=8
)


def theirs(attrs: Attributes, extended: list[tuple[bytes, bytes]] | None = None) -> SFTPAttrs:
    return SFTPAttrs(
        size=attrs.size,
        uid=attrs.uid,
        gid=attrs.gid,
        permissions=attrs.permissions,
        atime=attrs.atime,
        mtime=attrs.mtime,
        extended=extended or (),
    )


@given(ATTRIBUTES)
def test_attributes_are_packed_as_asyncssh_packs_them(attrs: Attributes) -> None:
    kind, body = packets.with_attributes(packets.FSETSTAT, b"handle", attrs)
    assert (kind, body) == (packets.FSETSTAT, String(b"handle") + theirs(attrs).encode(3))


@given(ATTRIBUTES | USUAL, st.lists(st.tuples(st.binary(), st.binary()), max_size=3))
def test_attributes_are_unpacked_whatever_is_with_them(
    attrs: Attributes, extended: list[tuple[bytes, bytes]]
) -> None:
    assert packets.attributes(theirs(attrs, extended).encode(3)) == attrs


def reply(names: list[tuple[bytes, bytes, Attributes]]) -> bytes:
    entries = [String(name) + String(long) + theirs(attrs).encode(3) for name, long, attrs in names]
    return UInt32(len(names)) + b"".join(entries)


@given(NAMES)
def test_names_are_unpacked_as_asyncssh_unpacks_them(
    names: list[tuple[bytes, bytes, Attributes]],
) -> None:
    sent = reply(names)
    packet = SSHPacket(sent)
    expected = [SFTPName.decode(packet, 3) for _ in range(packet.get_uint32())]
    for ours, their in zip(packets.names(sent), expected, strict=True):
        assert ours.filename == their.filename
        for field in ("size", "uid", "gid", "permissions", "mtime"):
            assert getattr(ours.attrs, field) == getattr(their.attrs, field)


@given(NAMES, st.data())
def test_names_that_are_cut_short_or_go_on_are_refused(
    names: list[tuple[bytes, bytes, Attributes]], data: st.DataObject
) -> None:
    sent = reply(names)
    for wrong in (sent[: data.draw(st.integers(0, len(sent) - 1))], sent + b"\0"):
        with pytest.raises(Implausible):
            packets.names(wrong)


def test_a_number_of_names_that_cannot_be() -> None:
    with pytest.raises(Implausible):
        packets.names(struct.pack(">I", 2**32 - 1))


@given(st.lists(LARGE, min_size=11, max_size=11))
def test_what_is_told_of_the_file_system(values: list[int]) -> None:
    body = struct.pack(">11Q", *values)
    theirs = SFTPVFSAttrs.decode(SSHPacket(body), 3)
    ours = packets.file_system(body)
    for field in ("bsize", "frsize", "blocks", "bfree", "bavail", "ffree", "favail", "fsid"):
        assert getattr(ours, field) == getattr(theirs, field)
    assert (ours.flags, ours.namemax) == (theirs.flags, theirs.namemax)


def test_limits() -> None:
    body = SFTPLimits(1, 2, 3, 4).encode()
    assert packets.limits(body) == packets.Limits(read=2, write=3, handles=4)


def test_extensions_count_in_the_version_that_is_meant() -> None:
    told = [(packets.FSYNC, b"1"), (packets.STATVFS, b"1"), (b"other@example.org", b"1")]
    body = b"".join(String(name) + String(version) for name, version in told)
    assert packets.extensions(body) == {packets.FSYNC}
    with pytest.raises(Implausible):
        packets.extensions(body[:-1])


@given(cuts=st.lists(st.integers(1, 40), max_size=20))
def test_replies_come_whole_wherever_they_are_cut(cuts: list[int]) -> None:
    sent = [(packets.DATA, n, os.urandom(n * 3)) for n in range(8)]
    wire = b"".join(struct.pack(">IBI", 5 + len(b), k, n) + b for k, n, b in sent)
    replies, got, at = packets.Replies(), [], 0
    for cut in [*cuts, len(wire)]:
        got += list(replies.feed(wire[at : at + cut]))
        at += cut
    assert got == sent


@pytest.mark.parametrize("length", [0, 4, packets.LARGEST + 1, 0xFFFF_FFFF])
def test_a_packet_that_cannot_be_is_not_waited_for(length: int) -> None:
    with pytest.raises(Implausible):
        list(packets.Replies().feed(struct.pack(">IBI", length, 101, 1)))


def test_a_handle_is_no_longer_than_the_protocol_has_it() -> None:
    """A thousand of a megabyte each would be kept here, and sent back with each request."""
    assert packets.handle(struct.pack(">I", 256) + bytes(256)) == bytes(256)
    with pytest.raises(Implausible):
        packets.handle(struct.pack(">I", 257) + bytes(257))


READERS: list[Callable[[bytes], object]] = [
    *(packets.attributes, packets.string, packets.handle, packets.names, packets.status),
    *(packets.limits, packets.file_system, packets.extensions),
]


@pytest.mark.parametrize("read", READERS)
@given(body=st.binary(max_size=120))
def test_whatever_comes_is_read_or_refused(read: Callable[[bytes], object], body: bytes) -> None:
    try:
        read(body)
    except Implausible:
        pass
