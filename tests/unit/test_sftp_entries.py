"""Tokens, paths and preconditions of the SFTP adapter."""

from __future__ import annotations

import errno
import stat
from dataclasses import replace

import asyncssh
import pytest

from awayfs.core.errors import (
    AuthenticationRequired,
    Implausible,
    NotFound,
    Refused,
    RemoteError,
    Unreachable,
    WrongServer,
)
from awayfs.core.types import ABSENT, Entry, Expected, Kind
from awayfs.remotes.sftp_entries import (
    LATEST,
    SECOND,
    basename,
    entry_of,
    join,
    kind_in,
    matches,
    parent,
    seconds,
)
from awayfs.remotes.sftp_errors import Failed, from_connecting, from_exception, from_status
from awayfs.remotes.sftp_packets import Attributes

SHOWN = Attributes(5, 1, 2, stat.S_IFREG | 0o640, 900, 1000)


def show(target: bytes | None = None, weak: bool = True, **fields: int) -> Entry:
    return entry_of(b"a", replace(SHOWN, **fields), target=target, weak=weak)


LINK = stat.S_IFLNK | 0o777


def test_entry() -> None:
    entry = show()
    assert (entry.kind, entry.mode, entry.size, entry.mtime_ns) == (
        Kind.FILE,
        0o640,
        5,
        1000 * SECOND,
    )
    assert entry.weak and entry.file_id is None and entry.ctime_ns is None


@pytest.mark.parametrize("change", [{"size": 6}, {"mtime": 1001}, {"permissions": stat.S_IFIFO}])
def test_token_tells_revisions_apart(change: dict[str, int]) -> None:
    assert show(**change).token != show().token


@pytest.mark.parametrize("change", [{"permissions": stat.S_IFREG}, {"uid": 9}, {"gid": 9}])
def test_token_is_about_content(change: dict[str, int]) -> None:
    assert show(**change).token == show().token


def test_a_symlink_is_its_target() -> None:
    one, other = show(b"x", permissions=LINK), show(b"y", permissions=LINK)
    assert one.token != other.token and not one.weak
    assert show(b"x", permissions=LINK, mtime=7).token == one.token


@pytest.mark.parametrize("kind", list(Kind))
def test_kind_in_token(kind: Kind) -> None:
    assert kind_in(show(permissions=int(kind)).token) is kind


FILE = show()
FIFO = show(permissions=stat.S_IFIFO)


@pytest.mark.parametrize(
    ("entry", "expected", "answer"),
    [
        (None, ABSENT, True),
        (FILE, ABSENT, False),
        (None, Expected(FILE.token), False),
        (FILE, Expected(FILE.token), True),
        (FILE, Expected(show(size=9).token), False),
        (FILE, Expected(show(size=9).token, content=False), True),
        (FILE, Expected(FIFO.token, content=False), False),
        (FILE, Expected(FILE.token, kind=Kind.DIRECTORY), False),
        (FILE, Expected(b"?", kind=Kind.FILE, content=False), True),
        (FILE, Expected(FILE.token, file_id=b"other adapter's"), True),
    ],
)
def test_matches(entry: Entry | None, expected: Expected, answer: bool) -> None:
    assert matches(entry, expected) is answer


@pytest.mark.parametrize(
    ("path", "directory", "name"),
    [(b"", b"", b""), (b"a", b"", b"a"), (b"a/b", b"a", b"b"), (b"a/b/c", b"a/b", b"c")],
)
def test_paths(path: bytes, directory: bytes, name: bytes) -> None:
    assert (parent(path), basename(path)) == (directory, name)
    if path:
        assert join(directory, name) == path


@pytest.mark.parametrize(
    ("ns", "expected"),
    [(0, 0), (999_999_999, 0), (10**9, 1), (-1, 0), (2**70, LATEST)],
)
def test_seconds(ns: int, expected: int) -> None:
    assert seconds(ns) == expected


@pytest.mark.parametrize(
    ("status", "expected", "code"),
    [
        (1, Implausible, None),
        (2, NotFound, None),
        (3, Refused, errno.EACCES),
        (4, Failed, errno.EIO),
        (5, Refused, errno.EINVAL),
        (6, Unreachable, None),
        (7, Unreachable, None),
        (8, Refused, errno.EOPNOTSUPP),
        (12, Refused, errno.EROFS),
        (14, Refused, errno.ENOSPC),
        (15, Refused, errno.EDQUOT),
        (0xFFFF_FFFF, Failed, errno.EIO),
    ],
)
def test_what_a_status_means(status: int, expected: type[RemoteError], code: int | None) -> None:
    answer = from_status(status, "no\n\x1b[2J" + "o" * 1000, b"a")
    assert isinstance(answer, expected)
    assert getattr(answer, "errno", None) == code
    assert str(answer).isprintable() and len(str(answer)) < 300


def test_a_name_that_is_too_long_is_a_bad_message() -> None:
    answer = from_status(5, "Bad message", b"d/" + b"n" * 256)
    assert isinstance(answer, Refused) and answer.errno == errno.ENAMETOOLONG


@pytest.mark.parametrize(
    "error", [asyncssh.ConnectionLost("gone"), ConnectionResetError(), TimeoutError()]
)
def test_errors_of_opening_a_session(error: Exception) -> None:
    assert isinstance(from_exception(error), Unreachable)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ConnectionRefusedError(), Unreachable),
        (OSError(errno.EHOSTUNREACH, "No route to host"), Unreachable),
        (TimeoutError(), Unreachable),
        (asyncssh.ConnectionLost("gone"), Unreachable),
        (asyncssh.PermissionDenied("no key"), AuthenticationRequired),
        (asyncssh.HostKeyNotVerifiable("who"), WrongServer),
        (asyncssh.KeyExchangeFailed("No matching host key algorithm found"), WrongServer),
        (asyncssh.KeyExchangeFailed("No matching cipher"), Refused),
        (asyncssh.ChannelOpenError(1, "no sftp"), Refused),
    ],
)
def test_errors_of_connecting(error: Exception, expected: type[RemoteError]) -> None:
    answer = from_connecting(error, "host:22")
    assert isinstance(answer, expected) and "host:22" in str(answer)
