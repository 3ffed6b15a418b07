"""The structs have the kernel's sizes; requests and replies survive the round trip."""

from __future__ import annotations

import os
import stat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from awayfs.fuse import requests, wire
from awayfs.fuse.decode import DECODERS, MalformedRequest, decode
from awayfs.fuse.lookups import LookupCounts
from awayfs.fuse.replies import (
    Attr,
    DirectoryBuffer,
    Entry,
    attr_out,
    create_out,
    entry_out,
    negative_entry_out,
    statx_out,
)
from awayfs.fuse.wire import Opcode
from awayfs.testing.fake_replies import attr_of, directory_of, entry_of, statx_of

# sizeof, as a C compiler gives it for include/uapi/linux/fuse.h
SIZES = {
    wire.IN_HEADER: 40,
    wire.OUT_HEADER: 16,
    wire.ATTR: 88,
    wire.STATX: 256,
    wire.INIT_IN: 16,
    wire.INIT_IN_EXT: 64,
    wire.INIT_OUT: 64,
    wire.FORGET_IN: 8,
    wire.FORGET_ONE: 16,
    wire.BATCH_FORGET_IN: 8,
    wire.GETATTR_IN: 16,
    wire.STATX_IN: 24,
    wire.SETATTR_IN: 88,
    wire.MKNOD_IN: 16,
    wire.MKDIR_IN: 8,
    wire.RENAME_IN: 8,
    wire.RENAME2_IN: 16,
    wire.LINK_IN: 8,
    wire.OPEN_IN: 8,
    wire.CREATE_IN: 16,
    wire.READ_IN: 40,
    wire.WRITE_IN: 40,
    wire.FLUSH_IN: 24,
    wire.RELEASE_IN: 24,
    wire.FSYNC_IN: 16,
    wire.SETXATTR_IN: 8,
    wire.GETXATTR_IN: 8,
    wire.ACCESS_IN: 8,
    wire.INTERRUPT_IN: 8,
    wire.IOCTL_IN: 32,
    wire.POLL_IN: 24,
    wire.FALLOCATE_IN: 32,
    wire.LSEEK_IN: 24,
    wire.COPY_FILE_RANGE_IN: 56,
    wire.SYNCFS_IN: 8,
    wire.ATTR_OUT: 16,
    wire.ENTRY_OUT: 40,
    wire.STATX_OUT: 32,
    wire.OPEN_OUT: 16,
    wire.WRITE_OUT: 8,
    wire.COPY_FILE_RANGE_OUT: 8,
    wire.STATFS_OUT: 80,
    wire.GETXATTR_OUT: 8,
    wire.LSEEK_OUT: 8,
    wire.POLL_OUT: 8,
    wire.IOCTL_OUT: 16,
    wire.IOCTL_IOVEC: 16,
    wire.DIRENT: 24,
    wire.NOTIFY_POLL_OUT: 8,
    wire.NOTIFY_INVAL_INODE_OUT: 24,
    wire.NOTIFY_INVAL_ENTRY_OUT: 16,
    wire.NOTIFY_DELETE_OUT: 24,
    wire.NOTIFY_STORE_OUT: 24,
    wire.NOTIFY_PRUNE_OUT: 16,
    wire.BACKING_MAP: 16,
}


@pytest.mark.parametrize("layout", SIZES, ids=lambda layout: layout.name)
def test_a_struct_has_the_size_the_kernel_gives_it(layout: wire.Layout) -> None:
    assert layout.size == SIZES[layout]


def test_every_layout_is_in_the_table_of_sizes() -> None:
    assert {value for value in vars(wire).values() if isinstance(value, wire.Layout)} == set(SIZES)


def test_packing_an_unknown_field_is_refused() -> None:
    with pytest.raises(ValueError, match="no field nonsense"):
        wire.FORGET_IN.pack(nonsense=1)


def message(opcode: int, body: bytes = b"", nodeid: int = 7) -> bytes:
    header = wire.IN_HEADER.pack(
        len=40 + len(body), opcode=opcode, unique=99, nodeid=nodeid, uid=1, gid=2, pid=3
    )
    return header + body


CALLER = (99, 7, 1, 2, 3)
LONG = b"n" * 255

REQUESTS: list[tuple[Opcode, bytes, requests.Request]] = [
    (Opcode.LOOKUP, b"name\0", requests.Lookup(*CALLER, b"name")),
    (Opcode.LOOKUP, b"..\0", requests.Lookup(*CALLER, b"..")),
    (Opcode.LOOKUP, b"\xff\xfe \n\0", requests.Lookup(*CALLER, b"\xff\xfe \n")),
    (Opcode.FORGET, wire.FORGET_IN.pack(nlookup=5), requests.Forget(*CALLER, 5)),
    (
        Opcode.BATCH_FORGET,
        wire.BATCH_FORGET_IN.pack(count=2)
        + wire.FORGET_ONE.pack(nodeid=3, nlookup=1)
        + wire.FORGET_ONE.pack(nodeid=4, nlookup=2),
        requests.BatchForget(*CALLER, [(3, 1), (4, 2)]),
    ),
    (
        Opcode.GETATTR,
        wire.GETATTR_IN.pack(getattr_flags=1, fh=8),
        requests.Getattr(*CALLER, 1, 8),
    ),
    (
        Opcode.STATX,
        wire.STATX_IN.pack(fh=8, sx_flags=4, sx_mask=0xFFF),
        requests.Statx(*CALLER, 0, 8, 4, 0xFFF),
    ),
    (
        Opcode.SETATTR,
        wire.SETATTR_IN.pack(
            valid=0x1FF,
            fh=1,
            size=2,
            lock_owner=3,
            atime=-1,
            atimensec=5,
            mtime=6,
            mtimensec=7,
            ctime=8,
            ctimensec=9,
            mode=10,
            uid=11,
            gid=12,
        ),
        requests.Setattr(
            *CALLER, 0x1FF, 1, 2, 3, -999_999_995, 6_000_000_007, 8_000_000_009, 10, 11, 12
        ),
    ),
    (Opcode.READLINK, b"", requests.Readlink(*CALLER)),
    (Opcode.SYMLINK, b"a\0../b c\0", requests.Symlink(*CALLER, b"a", b"../b c")),
    (
        Opcode.MKNOD,
        wire.MKNOD_IN.pack(mode=0o10644, rdev=5, umask=0o22) + b"p\0",
        requests.Mknod(*CALLER, 0o10644, 5, 0o22, b"p"),
    ),
    (
        Opcode.MKDIR,
        wire.MKDIR_IN.pack(mode=0o777, umask=0o77) + LONG + b"\0",
        requests.Mkdir(*CALLER, 0o777, 0o77, LONG),
    ),
    (Opcode.UNLINK, b"u\0", requests.Unlink(*CALLER, b"u")),
    (Opcode.RMDIR, b"r\0", requests.Rmdir(*CALLER, b"r")),
    (
        Opcode.RENAME,
        wire.RENAME_IN.pack(newdir=9) + b"a\0b\0",
        requests.Rename(*CALLER, 9, 0, b"a", b"b"),
    ),
    (
        Opcode.RENAME2,
        wire.RENAME2_IN.pack(newdir=9, flags=2) + b"a\0b\0",
        requests.Rename(*CALLER, 9, 2, b"a", b"b"),
    ),
    (Opcode.LINK, wire.LINK_IN.pack(oldnodeid=4) + b"l\0", requests.Link(*CALLER, 4, b"l")),
    (
        Opcode.OPEN,
        wire.OPEN_IN.pack(flags=os.O_RDWR, open_flags=1),
        requests.Open(*CALLER, os.O_RDWR, 1),
    ),
    (Opcode.OPENDIR, wire.OPEN_IN.pack(flags=1), requests.Opendir(*CALLER, 1, 0)),
    (
        Opcode.CREATE,
        wire.CREATE_IN.pack(flags=1, mode=2, umask=3, open_flags=4) + b"c\0",
        requests.Create(*CALLER, 1, 2, 3, 4, b"c"),
    ),
    (
        Opcode.TMPFILE,
        wire.CREATE_IN.pack(flags=1, mode=2, umask=3, open_flags=4) + b"/\0",
        requests.Tmpfile(*CALLER, 1, 2, 3, 4),
    ),
    (
        Opcode.READ,
        wire.READ_IN.pack(fh=1, offset=2, size=3, read_flags=4, lock_owner=5, flags=6),
        requests.Read(*CALLER, 1, 2, 3, 4, 5, 6),
    ),
    (
        Opcode.READDIR,
        wire.READ_IN.pack(fh=1, offset=2, size=3),
        requests.Readdir(*CALLER, 1, 2, 3, 0, 0, 0),
    ),
    (
        Opcode.READDIRPLUS,
        wire.READ_IN.pack(fh=1, offset=2**63, size=3),
        requests.Readdirplus(*CALLER, 1, 2**63, 3, 0, 0, 0),
    ),
    (
        Opcode.WRITE,
        wire.WRITE_IN.pack(fh=1, offset=2, size=4, write_flags=4, lock_owner=5, flags=6) + b"d\0ta",
        requests.Write(*CALLER, 1, 2, 4, 4, 5, 6, memoryview(b"d\0ta")),
    ),
    (
        Opcode.FLUSH,
        wire.FLUSH_IN.pack(fh=1, lock_owner=2),
        requests.Flush(*CALLER, 1, 2),
    ),
    (
        Opcode.RELEASE,
        wire.RELEASE_IN.pack(fh=1, flags=2, release_flags=3, lock_owner=4),
        requests.Release(*CALLER, 1, 2, 3, 4),
    ),
    (Opcode.RELEASEDIR, wire.RELEASE_IN.pack(fh=1), requests.Releasedir(*CALLER, 1, 0, 0, 0)),
    (Opcode.FSYNC, wire.FSYNC_IN.pack(fh=1, fsync_flags=1), requests.Fsync(*CALLER, 1, 1)),
    (Opcode.FSYNCDIR, wire.FSYNC_IN.pack(fh=1), requests.Fsyncdir(*CALLER, 1, 0)),
    (Opcode.STATFS, b"", requests.Statfs(*CALLER)),
    (
        Opcode.SETXATTR,
        wire.SETXATTR_IN.pack(size=3, flags=1) + b"user.a\0v\0v",
        requests.Setxattr(*CALLER, 3, 1, b"user.a", b"v\0v"),
    ),
    (
        Opcode.SETXATTR,
        wire.SETXATTR_IN.pack(size=0) + b"user.a/b\0",
        requests.Setxattr(*CALLER, 0, 0, b"user.a/b", b""),
    ),
    (
        Opcode.GETXATTR,
        wire.GETXATTR_IN.pack(size=8) + b"user.a\0",
        requests.Getxattr(*CALLER, 8, b"user.a"),
    ),
    (
        Opcode.GETXATTR,
        wire.GETXATTR_IN.pack(size=8) + b"user.a/b\0",
        requests.Getxattr(*CALLER, 8, b"user.a/b"),
    ),
    (Opcode.LISTXATTR, wire.GETXATTR_IN.pack(size=8), requests.Listxattr(*CALLER, 8)),
    (Opcode.REMOVEXATTR, b"user.a\0", requests.Removexattr(*CALLER, b"user.a")),
    (Opcode.ACCESS, wire.ACCESS_IN.pack(mask=4), requests.Access(*CALLER, 4)),
    (
        Opcode.IOCTL,
        wire.IOCTL_IN.pack(fh=1, flags=16, cmd=3, arg=4, in_size=2, out_size=6) + b"in",
        requests.Ioctl(*CALLER, 1, 16, 3, 4, 2, 6, b"in"),
    ),
    (
        Opcode.POLL,
        wire.POLL_IN.pack(fh=1, kh=2, flags=1, events=4),
        requests.Poll(*CALLER, 1, 2, 1, 4),
    ),
    (
        Opcode.FALLOCATE,
        wire.FALLOCATE_IN.pack(fh=1, offset=2, length=3, mode=4),
        requests.Fallocate(*CALLER, 1, 2, 3, 4),
    ),
    (
        Opcode.LSEEK,
        wire.LSEEK_IN.pack(fh=1, offset=2, whence=3),
        requests.Lseek(*CALLER, 1, 2, 3),
    ),
    (
        Opcode.COPY_FILE_RANGE,
        wire.COPY_FILE_RANGE_IN.pack(
            fh_in=1, off_in=2, nodeid_out=3, fh_out=4, off_out=5, len=6, flags=7
        ),
        requests.CopyFileRange(*CALLER, 1, 2, 3, 4, 5, 6, 7, False),
    ),
    (
        Opcode.COPY_FILE_RANGE_64,
        wire.COPY_FILE_RANGE_IN.pack(fh_in=1, len=2**40),
        requests.CopyFileRange(*CALLER, 1, 0, 0, 0, 0, 2**40, 0, True),
    ),
    (Opcode.SYNCFS, wire.SYNCFS_IN.pack(), requests.Syncfs(*CALLER)),
    (Opcode.INTERRUPT, wire.INTERRUPT_IN.pack(unique=42), requests.Interrupt(*CALLER, 42)),
    (Opcode.DESTROY, b"", requests.Destroy(*CALLER)),
]


@pytest.mark.parametrize(("opcode", "body", "expected"), REQUESTS)
def test_a_request_is_decoded(opcode: Opcode, body: bytes, expected: requests.Request) -> None:
    assert decode(message(opcode, body)) == expected


def test_every_operation_is_in_the_table_of_requests() -> None:
    assert {opcode for opcode, _, _ in REQUESTS} == set(DECODERS)


@pytest.mark.parametrize(("opcode", "body", "expected"), REQUESTS)
def test_a_truncated_request_is_malformed(opcode: Opcode, body: bytes, expected: object) -> None:
    whole = message(opcode, body)
    for size in range(len(whole)):
        with pytest.raises(MalformedRequest):
            decode(whole[:size])
        shorter = message(opcode, body[: max(0, size - 40)])
        if len(shorter) < len(whole) and opcode != Opcode.TMPFILE:
            with pytest.raises(MalformedRequest):
                decode(shorter)


BAD = {
    "no name": (Opcode.LOOKUP, b"\0"),
    "nothing": (Opcode.LOOKUP, b""),
    "no NUL": (Opcode.LOOKUP, b"name"),
    "a NUL inside": (Opcode.LOOKUP, b"na\0me\0"),
    "a slash": (Opcode.LOOKUP, b"a/b\0"),
    "one name for a rename": (Opcode.RENAME, wire.RENAME_IN.pack(newdir=1) + b"a\0"),
    "three names for a rename": (Opcode.RENAME, wire.RENAME_IN.pack(newdir=1) + b"a\0b\0c\0"),
    "a slash in the new name": (Opcode.RENAME, wire.RENAME_IN.pack(newdir=1) + b"a\0b/c\0"),
    "an empty new name": (Opcode.RENAME2, wire.RENAME2_IN.pack(newdir=1) + b"a\0\0"),
    "a symlink without target": (Opcode.SYMLINK, b"a\0"),
    "more forgets than said": (
        Opcode.BATCH_FORGET,
        wire.BATCH_FORGET_IN.pack(count=1) + wire.FORGET_ONE.pack() * 2,
    ),
    "a huge count of forgets": (Opcode.BATCH_FORGET, wire.BATCH_FORGET_IN.pack(count=2**32 - 1)),
    "more data than said": (Opcode.WRITE, wire.WRITE_IN.pack(size=1) + b"ab"),
    "less value than said": (Opcode.SETXATTR, wire.SETXATTR_IN.pack(size=9) + b"a\0b"),
    "an xattr without name": (Opcode.SETXATTR, wire.SETXATTR_IN.pack(size=1) + b"\0b"),
    "less ioctl data than said": (Opcode.IOCTL, wire.IOCTL_IN.pack(in_size=4) + b"ab"),
    "an unknown opcode": (9999, b""),
    "an opcode that never existed": (Opcode.LOOKUP * 0 + 7, b""),
}


@pytest.mark.parametrize("case", BAD)
def test_a_malformed_request_is_refused(case: str) -> None:
    with pytest.raises(MalformedRequest):
        decode(message(*BAD[case]))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_request_or_malformed(data: bytes) -> None:
    try:
        decode(data)
    except MalformedRequest:
        pass


@given(st.sampled_from([*Opcode]), st.binary(max_size=200))
def test_any_body_is_a_request_or_malformed(opcode: int, body: bytes) -> None:
    try:
        decode(message(opcode, body))
    except MalformedRequest:
        pass


def test_a_write_keeps_its_data_without_copying_it() -> None:
    whole = message(Opcode.WRITE, wire.WRITE_IN.pack(size=3) + b"abc")
    request = decode(whole)
    assert isinstance(request, requests.Write)
    assert request.data.obj is whole


TIME = st.integers(-(2**62), 2**62)
U32 = st.integers(0, 2**32 - 1)
U64 = st.integers(0, 2**64 - 1)
DEVICE = st.builds(os.makedev, st.integers(0, 2**12 - 1), st.integers(0, 2**20 - 1))
ATTRS = st.builds(
    Attr,
    ino=U64,
    size=U64,
    blocks=U64,
    atime_ns=TIME,
    mtime_ns=TIME,
    ctime_ns=TIME,
    btime_ns=TIME,
    mode=st.integers(0, 0xFFFF),
    nlink=U32,
    uid=U32,
    gid=U32,
    rdev=DEVICE,
    blksize=U32,
)


@given(ATTRS)
def test_attributes_survive_the_round_trip(attr: Attr) -> None:
    back = attr_of(attr_out(attr, 1.5), wire.ATTR_OUT.size)
    back.btime_ns = attr.btime_ns  # has no place there
    assert back == attr


@given(ATTRS)
def test_attributes_with_birth_time_survive_the_round_trip(attr: Attr) -> None:
    assert statx_of(statx_out(attr), wire.STATX_OUT.size) == attr


@given(ATTRS, U64, st.integers(0, 10**12), st.integers(0, 10**12))
def test_an_entry_survives_the_round_trip(
    attr: Attr, nodeid: int, entry_ms: int, attr_ms: int
) -> None:
    entry = Entry(nodeid, attr, entry_ms / 1000, attr_ms / 1000, generation=3)
    back = entry_of(entry_out(entry))
    assert (back.nodeid, back.generation) == (nodeid, 3)
    assert back.entry_valid == pytest.approx(entry_ms / 1000, abs=1e-3)
    assert back.attr_valid == pytest.approx(attr_ms / 1000, abs=1e-3)
    assert (back.attr.ino, back.attr.mtime_ns) == (attr.ino, attr.mtime_ns)


@pytest.mark.parametrize(
    ("time_ns", "seconds", "rest"),
    [
        (0, 0, 0),
        (1, 0, 1),
        (-1, -1, 999_999_999),
        (-1_000_000_000, -1, 0),
        (-1_000_000_001, -2, 999_999_999),
        (1_700_000_000_123_456_789, 1_700_000_000, 123_456_789),
    ],
)
def test_a_time_before_1970_has_a_positive_rest(time_ns: int, seconds: int, rest: int) -> None:
    attr = Attr(1, 0, 0, time_ns, 0, 0, 0, stat.S_IFREG, 1, 0, 0)
    fields = wire.ATTR.unpack(attr_out(attr), wire.ATTR_OUT.size)
    assert (fields["atime"], fields["atimensec"]) == (seconds, rest)


def an_entry(nodeid: int) -> Entry:
    return Entry(nodeid, Attr(nodeid, 0, 0, 0, 0, 0, 0, 0o100644, 1, 0, 0), 1.0, 1.0)


def test_a_created_file_is_an_entry_and_an_open_file() -> None:
    payload = create_out(an_entry(5), 6, wire.FOPEN_KEEP_CACHE, 7)
    assert entry_of(payload).nodeid == 5
    assert wire.OPEN_OUT.unpack(payload, 128) == {"fh": 6, "open_flags": 2, "backing_id": 7}
    assert len(payload) == 144


def test_a_remembered_absence_has_no_node() -> None:
    entry = entry_of(negative_entry_out(2.5))
    assert (entry.nodeid, entry.entry_valid) == (0, 2.5)


NAME = st.binary(min_size=1, max_size=255).filter(lambda name: not {0, 47} & set(name))


@given(st.lists(NAME, max_size=40), st.integers(0, 3000), st.booleans())
def test_a_listing_holds_what_fits_and_no_more(names: list[bytes], size: int, plus: bool) -> None:
    buffer = DirectoryBuffer(size, plus=plus)
    added = []
    for number, name in enumerate(names, 1):
        dots = name in (b".", b"..")
        entry = an_entry(number) if plus and not dots else None
        if not buffer.add(name, number, 8, number, entry):
            break
        added.append((name, number, None if entry is None else number))
    found = directory_of(buffer.finish(), size, plus)
    assert [
        (item.name, item.offset, item.entry.nodeid if item.entry else None) for item in found
    ] == added
    assert buffer.looked_up == [nodeid for _, _, nodeid in added if nodeid is not None]
    if len(added) < len(names):
        record = 24 + wire.align8(len(names[len(added)])) + (128 if plus else 0)
        assert len(buffer.finish()) + record > size


def test_lookups_are_counted_until_they_are_forgotten() -> None:
    counts = LookupCounts()
    counts.add(5)
    counts.add(5, 2)
    counts.add_all([6, 6, 7])
    assert (counts[5], counts[6], counts[7], counts[8]) == (3, 2, 1, 0)
    assert counts.forget(5, 2) == 1
    assert 5 in counts
    assert counts.forget(5, 1) == 0
    assert 5 not in counts
    assert counts.forget(9, 4) == 0
    assert sorted(counts) == [6, 7]
