"""NAME replies decoded at once mean what asyncssh takes them for."""

from __future__ import annotations

import struct

from asyncssh.packet import SSHPacket, String, UInt32
from asyncssh.sftp import SFTPAttrs, SFTPName
from hypothesis import given
from hypothesis import strategies as st

from awayfs.remotes.sftp_names import decode_usual

NUMBER = st.integers(0, 2**32 - 1)
USUAL = st.builds(
    lambda size, uid, gid, permissions, time: SFTPAttrs(
        size=size, uid=uid, gid=gid, permissions=permissions, atime=time, mtime=time
    ),
    st.integers(0, 2**64 - 1),
    NUMBER,
    NUMBER,
    st.integers(0, 0xFFFF),
    NUMBER,
)
NAMES = st.lists(st.tuples(st.binary(max_size=300), st.binary(max_size=300), USUAL), max_size=8)


def reply(names: list[tuple[bytes, bytes, SFTPAttrs]]) -> bytes:
    entries = [String(name) + String(long) + attrs.encode(3) for name, long, attrs in names]
    return UInt32(len(names)) + b"".join(entries)


@given(NAMES)
def test_as_asyncssh_decodes_them(names: list[tuple[bytes, bytes, SFTPAttrs]]) -> None:
    sent = reply(names)
    packet = SSHPacket(sent)
    theirs = [SFTPName.decode(packet, 3) for _ in range(packet.get_uint32())]
    ours = decode_usual(sent)
    assert ours is not None
    for one, other in zip(ours, theirs, strict=True):
        assert one.filename == other.filename
        for field in ("size", "uid", "gid", "permissions", "mtime"):
            assert getattr(one.attrs, field) == getattr(other.attrs, field)


@given(NAMES, st.data())
def test_what_was_cut_short_or_goes_on_is_not_taken(
    names: list[tuple[bytes, bytes, SFTPAttrs]], data: st.DataObject
) -> None:
    sent = reply(names)
    cut = data.draw(st.integers(0, len(sent) - 1))
    assert decode_usual(sent[:cut]) is None
    assert decode_usual(sent + b"\0") is None


def test_other_attributes_are_left_to_asyncssh() -> None:
    for attrs in (SFTPAttrs(), SFTPAttrs(size=1), SFTPAttrs(extended=[(b"a", b"b")])):
        assert decode_usual(reply([(b"n", b"long", attrs)])) is None


def test_a_number_of_names_that_cannot_be() -> None:
    assert decode_usual(struct.pack(">I", 2**32 - 1)) is None
