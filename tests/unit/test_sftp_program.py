"""A program of ours on the server: when it is used, what it guards, what becomes of it."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import importlib.resources
import logging
import os
import shutil
import stat
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from msgspec.structs import replace
from tests.unit.test_sftp_remote import Url

from awayfs.core.errors import NotFound, RemoteError, Unreachable
from awayfs.core.types import (
    ABSENT,
    NEVER_SEEN,
    Attributes,
    Committed,
    Expected,
    Kind,
    Mismatch,
)
from awayfs.ports.remote import Intent
from awayfs.remotes import server_steps as far
from awayfs.remotes import sftp_program
from awayfs.remotes.names import fence_name
from awayfs.remotes.sftp import SftpRemote
from awayfs.remotes.sftp_by_program import ByProgram
from awayfs.remotes.sftp_clock import ServerClock
from awayfs.remotes.sftp_program import MOST_NOISE, PARTS, Program
from awayfs.remotes.sftp_revisions import Contents
from awayfs.remotes.sftp_view import View

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from by_program import WithProgram, acting, killing
from sshd import Sshd, needs_sshd, serving

pytestmark = needs_sshd

MODE = Attributes(mode=0o640, mtime_ns=1_500_000_000_000_000_000)
OLD = b"old content"
FENCE = fence_name("")
Body = Callable[[WithProgram, bytes], Awaitable[None]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with serving(str(tmp_path_factory.mktemp("sshd"))) as running:
        yield running


def run(server: Sshd, tmp_path: Path, body: Body, hook: str = "", wait: bool = True) -> None:
    """A test with a remote, connected to an empty directory."""
    root = os.fsencode(tmp_path) + b"/root"
    os.makedirs(root, exist_ok=True)

    async def whole() -> None:
        remote = WithProgram(Url(root, user=server.user, port=server.port), server.options, wait)
        remote.hook = hook
        try:
            await remote.connect()
            await body(remote, root)
        finally:
            await remote.close()

    asyncio.run(whole())


def write(path: bytes, data: bytes, mtime: int | None = 1_400_000_000) -> None:
    with open(path, "wb") as file:
        file.write(data)
    if mtime is not None:
        os.utime(path, (mtime, mtime))


async def there(remote: WithProgram, path: bytes) -> Expected:
    entry = await remote.stat(path)
    return Expected(entry.token, entry.file_id, entry.kind)


def standing(root: bytes) -> dict[bytes, bytes]:
    """All files with their contents, but for the fence."""
    found = {}
    for above, _, names in os.walk(root):
        for name in set(names) - {FENCE}:
            with open(os.path.join(above, name), "rb") as file:
                found[os.path.relpath(os.path.join(above, name), root)] = file.read()
    return found


# -- what it does -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", PARTS)
def test_its_text_is_python_3_6(name: str) -> None:
    text = importlib.resources.files("awayfs.remotes").joinpath(f"{name}.py").read_text()
    tree = ast.parse(text, feature_version=(3, 6))
    assert not any(isinstance(one, ast.JoinedStr | ast.NamedExpr) for one in ast.walk(tree))
    for one in ast.walk(tree):
        if isinstance(one, ast.ImportFrom):
            ours = (one.module or "").rpartition(".")[2]
            assert ours in (*PARTS, "typing"), one.module


@pytest.mark.parametrize("directory", [b"", b"d/e/"])
def test_it_shows_what_sftp_shows(server: Sshd, tmp_path: Path, directory: bytes) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        os.makedirs(root + b"/" + directory, exist_ok=True)
        path, asked = directory + b"f", remote.program.asked
        made = await remote.put("a", path, b"content", MODE, ABSENT)
        assert isinstance(made, Committed) and made.entry == await remote.stat(path)
        assert made.entry.mode == 0o640 and made.entry.mtime_ns == MODE.mtime_ns
        again = await remote.put("b", path, b"", MODE, await there(remote, path))
        assert isinstance(again, Committed) and again.entry == await remote.stat(path)
        taken = await remote.put("c", path, b"x", MODE, ABSENT)
        assert taken == Mismatch(await remote.stat(path))
        other = await remote.put("d", path, b"x", MODE, Expected(b"f:9:9"))
        assert other == Mismatch(await remote.stat(path))
        moved = await remote.rename("e", path, b"g", await there(remote, path), ABSENT)
        assert isinstance(moved, Committed) and moved.entry == await remote.stat(b"g")
        write(root + b"/h", b"h")
        assert (await remote.digest(b"h")).entry == await remote.stat(b"h")
        gone = await remote.remove("f", b"g", await there(remote, b"g"))
        assert gone == Committed(None)
        assert standing(root) == {b"h": b"h"}
        assert remote.program.asked - asked == 7
        with pytest.raises(NotFound):
            await remote.digest(b"nothing")
        with pytest.raises(NotFound):
            await remote.rename("g", b"nothing", b"x", Expected(b"f:1:1"), ABSENT)
        assert await remote.remove("h", b"nothing", Expected(b"f:1:1")) == Mismatch(None)

    run(server, tmp_path, body)


def test_symlinks(server: Sshd, tmp_path: Path) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        os.symlink(b"target", root + b"/l")
        moved = await remote.rename("a", b"l", b"m", await there(remote, b"l"), ABSENT)
        assert isinstance(moved, Committed) and moved.entry == await remote.stat(b"m")
        over = await remote.put("b", b"m", b"file", MODE, ABSENT)
        assert over == Mismatch(await remote.stat(b"m"))
        assert await remote.remove("c", b"m", await there(remote, b"m")) == Committed(None)
        assert os.listdir(root) == [FENCE]

    run(server, tmp_path, body)


def test_a_symlink_in_the_way_is_not_followed(server: Sshd, tmp_path: Path) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        outside = os.fsencode(tmp_path) + b"/outside"
        os.mkdir(outside)
        write(outside + b"/f", OLD)
        os.symlink(outside, root + b"/d")
        token = Expected(b"f:%d:1400000000" % len(OLD), kind=Kind.FILE)
        for call in (
            lambda: remote.put("a", b"d/new", b"x", MODE, ABSENT),
            lambda: remote.put("b", b"d/f", b"x", MODE, token),
            lambda: remote.remove("c", b"d/f", token),
            lambda: remote.rename("d", b"d/f", b"g", token, ABSENT),
            lambda: remote.digest(b"d/f"),
        ):
            with pytest.raises(NotFound):
                await call()
        assert standing(outside) == {b"f": OLD}

    run(server, tmp_path, body)


def test_many_at_once_and_what_is_unusual_goes_the_usual_way(server: Sshd, tmp_path: Path) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        write(root + b"/one", OLD)
        os.link(root + b"/one", root + b"/two")  # a hard link: SFTP's business
        os.mkdir(root + b"/d")
        puts = [remote.put(f"p{i}", b"%d" % i, b"%d" % i * 3000, MODE, ABSENT) for i in range(300)]
        linked = remote.put("x", b"one", b"new", MODE, await there(remote, b"one"))
        removed = remote.remove("y", b"d", await there(remote, b"d"))
        *many, over, gone = await asyncio.gather(*puts, linked, removed)
        assert all(isinstance(one, Committed) for one in many)
        assert isinstance(over, Committed) and gone == Committed(None)
        found = standing(root)
        assert found.pop(b"one") == b"new" and found.pop(b"two") == OLD
        assert found == {b"%d" % i: b"%d" % i * 3000 for i in range(300)}

    run(server, tmp_path, body)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to give a file away")
def test_the_owner_of_the_replaced_file_is_carried_over(server: Sshd, tmp_path: Path) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        write(root + b"/f", OLD)
        os.chown(root + b"/f", 1234, 4321)
        put = Attributes(mode=0o4755, uid=0, gid=0)
        done = await remote.put("a", b"f", b"new", put, await there(remote, b"f"))
        assert isinstance(done, Committed) and done.entry == await remote.stat(b"f")
        found = os.stat(root + b"/f")
        assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (1234, 4321, 0o4755)

    run(server, tmp_path, body)


# -- who comes in between ---------------------------------------------------------------------

THEIRS = b"their content"
SAVED = (
    f"open({{path!r}} + b'.t', 'wb').write({THEIRS!r}); os.rename({{path!r}} + b'.t', {{path!r}})"
)
WRITTEN = (
    "fd = os.open({path!r}, os.O_RDWR); os.pwrite(fd, b'OLD', 0);"
    " os.close(fd); os.utime({path!r}, (1400000000,) * 2)"
)


async def _replaced(remote: WithProgram) -> object:
    return await remote.put("op", b"f", b"ours", MODE, await there(remote, b"f"))


async def _created(remote: WithProgram) -> object:
    return await remote.put("op", b"n", b"ours", MODE, ABSENT)


async def _removed(remote: WithProgram) -> object:
    return await remote.remove("op", b"f", await there(remote, b"f"))


async def _renamed(remote: WithProgram) -> object:
    return await remote.rename("op", b"f", b"n", await there(remote, b"f"), ABSENT)


POINTS = {
    _created: ("created", "staged", "synced", "placed"),
    _replaced: ("created", "synced", "checked", "taken", "compared", "placed", "looked again"),
    _removed: ("checked", "taken", "compared"),
    _renamed: ("checked", "linked", "placed", "source taken", "source dropped"),
}


@pytest.mark.parametrize(
    ("act", "point"), [(act, point) for act, points in POINTS.items() for point in points]
)
@pytest.mark.parametrize("name", [b"f", b"n"])
def test_a_revision_that_is_saved_in_between_is_kept(
    server: Sshd, tmp_path: Path, act: Callable[..., Any], point: str, name: bytes
) -> None:
    path = os.fsencode(tmp_path) + b"/root/" + name
    hook = acting(point, SAVED.format(path=path))

    async def body(remote: WithProgram, root: bytes) -> None:
        write(root + b"/f", OLD)
        try:
            outcome = await act(remote)
        except NotFound:
            outcome = None
        found = standing(root)
        assert THEIRS in found.values(), (outcome, found)
        assert not [one for one in found if b".awayfs-" in one]
        if not isinstance(outcome, Committed):
            assert OLD in found.values() or (name == b"f" and found[b"f"] == THEIRS)

    run(server, tmp_path, body, hook)


@pytest.mark.parametrize(
    ("act", "point"),
    [
        (_replaced, "created"),  # a removal creates nothing
        *((act, at) for act in (_replaced, _removed) for at in ("checked", "taken", "compared")),
    ],
)
def test_what_is_written_into_the_file_itself_is_kept_although_its_token_is_the_same(
    server: Sshd, tmp_path: Path, act: Callable[..., Any], point: str
) -> None:
    """Same size, same second: only the content tells, and the digest that was asked for."""
    at = b"/root/.awayfs-op.old" if point in ("taken", "compared") else b"/root/f"
    hook = acting(point, WRITTEN.format(path=os.fsencode(tmp_path) + at))

    async def body(remote: WithProgram, root: bytes) -> None:
        write(root + b"/f", OLD)
        clock = remote._parts.session.clock
        clock.weak = lambda *_given: True  # type: ignore[method-assign]
        await remote.digest(b"f")
        outcome = await act(remote)
        found = standing(root)
        assert b"OLD" + OLD[3:] in found.values(), (outcome, found)
        assert not [one for one in found if b".awayfs-" in one]
        if act is _removed and point == "compared":
            assert outcome == Committed(None) and b"f" not in found

    run(server, tmp_path, body, hook)


def test_what_is_written_over_with_the_same_token_before_we_come_is_a_mismatch(
    server: Sshd, tmp_path: Path
) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        write(root + b"/f", OLD)
        remote._parts.session.clock.weak = lambda *_given: True  # type: ignore[method-assign]
        expected = await there(remote, b"f")
        await remote.digest(b"f")
        write(root + b"/f", OLD.upper())
        assert isinstance(await remote.put("a", b"f", b"ours", MODE, expected), Mismatch)
        assert isinstance(await remote.remove("b", b"f", expected), Mismatch)
        with pytest.raises(NotFound):
            await remote.rename("c", b"f", b"g", expected, ABSENT)
        assert standing(root) == {b"f": OLD.upper()}

    run(server, tmp_path, body)


@pytest.mark.parametrize("is_ready", [True, False])
@pytest.mark.parametrize("act", ["put", "remove", "rename"])
def test_an_edit_after_the_digest_is_found_although_the_second_has_passed(
    server: Sshd, tmp_path: Path, is_ready: bool, act: str
) -> None:
    """The token was weak when its digest was taken, and is strong when the change comes."""

    async def body(remote: WithProgram, root: bytes) -> None:
        await remote.put("w", b"w", b"", MODE, ABSENT)  # the server shows its clock
        write(root + b"/f", OLD)
        clock = remote._parts.session.clock
        weak, clock.weak = clock.weak, lambda *_given: True  # type: ignore[method-assign]
        expected = await there(remote, b"f")
        await remote.digest(b"f")
        clock.weak = weak  # type: ignore[method-assign]
        write(root + b"/f", OLD.upper())
        remote.program.is_ready = is_ready
        calls = {
            "put": lambda: remote.put("a", b"f", b"ours", MODE, expected),
            "remove": lambda: remote.remove("b", b"f", expected),
            "rename": lambda: remote.rename("c", b"f", b"g", expected, ABSENT),
        }
        if act == "rename":
            with pytest.raises(NotFound):
                await calls[act]()
        else:
            assert isinstance(await calls[act](), Mismatch)
        found = standing(root)
        assert found.pop(b"w") == b"" and OLD.upper() in found.values()
        assert b"g" not in found
        assert not isinstance(await calls[act](), Mismatch)  # nobody is refused for ever

    run(server, tmp_path, body)


@pytest.mark.parametrize("act", ["put", "remove"])
def test_what_is_written_into_the_file_itself_is_kept_although_nobody_was_told(
    server: Sshd, tmp_path: Path, act: str
) -> None:
    """It dies after it has compared, somebody writes under the same token, and all is settled."""
    aside = os.fsencode(tmp_path) + b"/root/.awayfs-op.old"
    hook = acting(
        "compared" if act == "remove" else "placed",
        WRITTEN.format(path=aside) + "; os.kill(os.getpid(), 9)",
    )

    async def body(remote: WithProgram, root: bytes) -> None:
        write(root + b"/f", OLD)
        os.utime(root + b"/f", (1_400_000_000,) * 2)
        clock = remote._parts.session.clock
        clock.weak = lambda *_given: True  # type: ignore[method-assign]
        seen = await remote.digest(b"f")
        expected = Expected(seen.entry.token, None, Kind.FILE, digest=seen.blake2b)
        staged, digest = None, None
        with pytest.raises(Unreachable):
            if act == "put":
                await remote.put("op", b"f", b"ours", MODE, expected)
            else:
                await remote.remove("op", b"f", expected)
        if act == "put":
            digest = hashlib.blake2b(b"ours", digest_size=32).digest()
            staged = replace(seen.entry, size=4, token=NEVER_SEEN)
        await remote.settle(Intent("op", b"f", expected, staged=staged, staged_digest=digest))
        found = standing(root)
        assert b"OLD content" in found.values()
        assert not [name for name in found if b".awayfs-" in name]

    run(server, tmp_path, body, hook)


def test_what_it_cannot_end_once_the_new_revision_stands_is_no_no(
    server: Sshd, tmp_path: Path
) -> None:
    """By SFTP it would be done again, over the revision that stands there by now: ours."""
    aside = os.fsencode(tmp_path) + b"/root/.awayfs-op.old"
    hook = acting("looked again", f"os.unlink({aside!r}); os.mkdir({aside!r})")

    async def body(remote: WithProgram, root: bytes) -> None:
        write(root + b"/f", OLD)
        with pytest.raises(Unreachable):
            await _replaced(remote)
        assert standing(root) == {b"f": b"ours"}

    run(server, tmp_path, body, hook)


# -- its end ----------------------------------------------------------------------------------


def test_one_that_dies_ends_what_was_asked_and_is_not_begun_again(
    server: Sshd, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        with pytest.raises(Unreachable):
            await remote.put("a", b"f", b"ours", MODE, ABSENT)
        assert "not used any more" in caplog.text
        done = await remote.put("b", b"g", b"ours", MODE, ABSENT)  # by SFTP, over the same session
        assert isinstance(done, Committed)
        assert not remote._may_run
        await super(WithProgram, remote).connect()
        assert not remote._may_run

    run(server, tmp_path, body, killing(1))


def test_the_end_of_the_connection_is_no_fault_of_the_program(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with serving(str(tmp_path / "sshd")) as server:

        async def body(remote: WithProgram, root: bytes) -> None:
            puts = [remote.put(f"p{i}", b"%d" % i, b"x" * 30000, MODE, ABSENT) for i in range(400)]
            running = asyncio.gather(*puts, return_exceptions=True)
            await asyncio.sleep(0.05)
            server.kill()
            outcomes = await running
            assert any(isinstance(one, Unreachable) for one in outcomes)
            assert remote._may_run and "not used any more" not in caplog.text

        run(server, tmp_path, body)


def test_a_program_that_answers_nothing_is_given_up(server: Sshd, tmp_path: Path) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        remote.program._stall_s = 0.5
        with pytest.raises(Unreachable):
            await remote.put("a", b"f", b"ours", MODE, ABSENT)
        assert not remote._may_run

    run(server, tmp_path, body, acting("created", "time.sleep(3)"))


def test_who_settles_waits_for_what_is_under_way(server: Sshd, tmp_path: Path) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        putting = asyncio.ensure_future(remote.put("a", b"f", b"ours", MODE, ABSENT))
        await asyncio.sleep(0.1)
        putting.cancel()
        await remote._parts.by_program.over("b")
        assert b".awayfs-a.new" in standing(root)
        await remote._parts.by_program.over("a")
        assert standing(root) == {b"f": b"ours"}

    run(server, tmp_path, body, acting("created", "time.sleep(0.6)"))


def started(root: bytes) -> subprocess.Popen[bytes]:
    """The program alone; it has made its fence."""
    command = [sys.executable, "-I", "-S", "-c", Program.text().decode()]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdin is not None
    process.stdin.write(far.ROOT.pack(len(root)) + root)
    body = far.FENCE.pack(len(FENCE), 7, 1_000_000_007) + FENCE
    process.stdin.write(far.HEAD.pack(5 + len(body), 9, far.ASKED_FENCE) + body)
    process.stdin.flush()
    assert process.stdout.read(far.HEAD.size) == far.HEAD.pack(5, 0, far.DONE)
    assert answer_of(process)[:2] == (9, far.DONE)
    return process


def answer_of(process: subprocess.Popen[bytes]) -> tuple[int, int, bytes]:
    """The one answer of a batch."""
    assert process.stdout is not None
    told = far.HEAD.unpack(process.stdout.read(far.HEAD.size))
    assert told[1:] == (0, far.BATCH)
    process.stdout.read(told[0] - 5)
    length, answered, status = far.HEAD.unpack(process.stdout.read(far.HEAD.size))
    return answered, status, process.stdout.read(length - 5)


def new_file(number: int, op: bytes, path: bytes, content: bytes) -> bytes:
    """A request."""
    head = far.PUT.pack(len(op), len(path), 0o600, -1, -1, -1, -1, 0, 0, 0, 0)
    body = head + op + path + content
    return far.HEAD.pack(5 + len(body), number, far.ASKED_PUT) + body


def test_what_waits_when_nobody_is_there_any_more_is_not_done(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    process = started(root)
    assert process.stdin is not None and process.stdout is not None
    os.kill(process.pid, 19)  # SIGSTOP: as if it was busy
    process.stdin.write(new_file(1, b"a", b"f", b"x"))
    process.stdin.close()
    os.kill(process.pid, 18)
    assert process.stdout.read() == b""
    assert process.wait() == 0
    assert os.listdir(root) == []


def test_without_a_fence_it_does_nothing(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    process = started(root)
    assert process.stdin is not None and process.stdout is not None
    os.unlink(root + b"/" + FENCE)
    process.stdin.write(new_file(1, b"a", b"f", b"x"))
    process.stdin.flush()
    assert process.stdout.read() == b""
    assert process.wait() == 0
    assert os.listdir(root) == [b".awayfs-a.new"]  # which ``settle`` removes
    process.stdin.close()


def test_nothing_of_it_stays_where_its_answers_go_nowhere(tmp_path: Path) -> None:
    """Its session may end while it is at work, and nobody may ever connect again."""
    root = os.fsencode(tmp_path)
    process = started(root)
    assert process.stdin is not None and process.stdout is not None
    process.stdout.close()
    process.stdin.write(new_file(1, b"a", b"f", b"x"))
    process.stdin.flush()
    process.wait()
    assert os.listdir(root) == [b"f"]
    process.stdin.close()


BEFORE_THE_LAST_STEP = {
    _created: ("created", "staged", "synced"),
    _replaced: ("created", "synced", "checked", "taken", "compared"),
    _removed: ("checked", "taken", "compared"),
    _renamed: ("checked", "linked"),
}


@pytest.mark.parametrize(
    ("act", "point"),
    [(act, point) for act, points in BEFORE_THE_LAST_STEP.items() for point in points],
)
def test_it_takes_no_further_step_once_a_later_session_is_there(
    server: Sshd, tmp_path: Path, act: Callable[..., Any], point: str
) -> None:
    """Held up at any point, it does not know of that; what it left is settled, and stays so."""
    held = tmp_path / "held"
    wait = f"open({str(held)!r}, 'w').close(); time.sleep(1.5)"

    async def body(remote: WithProgram, root: bytes) -> None:
        write(root + b"/f", OLD)
        expected, name = await there(remote, b"f"), b"n" if act is _created else b"f"
        task = asyncio.ensure_future(act(remote))
        while not held.exists():
            await asyncio.sleep(0.01)
        task.cancel()
        later = WithProgram(
            Url(root, user=server.user, port=server.port), server.options, wait=False
        )
        await later.connect()
        try:
            if act is _renamed:
                intent = Intent("op", b"n", ABSENT, other_path=b"f", other_expected=expected)
            else:
                intent = Intent("op", name, ABSENT if act is _created else expected)
            await later.settle(intent)
            assert standing(root) == {b"f": OLD}
            await remote._parts.by_program.over("op")
            assert standing(root) == {b"f": OLD}
        finally:
            await later.close()

    run(server, tmp_path, body, acting(point, wait))


@pytest.mark.parametrize(("act", "point"), [(_removed, "compared"), (_replaced, "looked again")])
def test_it_removes_nothing_that_a_later_session_moved_aside(
    server: Sshd, tmp_path: Path, act: Callable[..., Any], point: str
) -> None:
    """The later one does the same operation again, on what stands there by then."""
    root = os.fsencode(tmp_path) + b"/root"
    fence, theirs, aside = (root + b"/" + name for name in (FENCE, b"theirs", b".awayfs-op.old"))
    later = f"os.unlink({fence!r}); os.rename({theirs!r}, {aside!r})"

    async def body(remote: WithProgram, root: bytes) -> None:
        write(root + b"/f", OLD)
        write(root + b"/theirs", b"theirs")
        with pytest.raises(Unreachable):
            await act(remote)
        assert standing(root)[b".awayfs-op.old"] == b"theirs"

    run(server, tmp_path, body, acting(point, later))


def test_it_is_gone_with_its_fence_when_the_session_ends(server: Sshd, tmp_path: Path) -> None:
    root = os.fsencode(tmp_path) + b"/root"

    async def body(remote: WithProgram, root: bytes) -> None:
        assert FENCE in os.listdir(root)
        assert await remote.list(b"") == []

    run(server, tmp_path, body)
    deadline = time.monotonic() + 20
    while os.listdir(root):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_what_a_dead_program_left_is_no_fence_of_the_next(server: Sshd, tmp_path: Path) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        for path in (root + b"/" + FENCE, root + b"/f"):
            with open(path, "wb") as file:
                file.write(b"left")
        await remote.connect()
        assert isinstance(await remote.put("a", b"g", b"ours", MODE, ABSENT), Committed)
        assert remote.program.asked == 2

    run(server, tmp_path, body)


def test_many_requests_are_one_batch_and_none_waits_for_more(tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    process = started(root)
    assert process.stdin is not None and process.stdout is not None
    for number, op in ((1, b"a"), (2, b"b")):
        process.stdin.write(new_file(number, op, b"f" + op, b"x" * 5000))
        process.stdin.flush()
        assert answer_of(process)[:2] == (number, far.DONE)
    process.stdin.close()
    assert process.wait() == 0
    assert sorted(os.listdir(root)) == [b"fa", b"fb"]


@pytest.mark.parametrize("rubbish", [b"\0" * 9, b"\xff" * 20, struct.pack(">IIB", 5, 1, 99)])
def test_it_ends_at_what_is_no_request(tmp_path: Path, rubbish: bytes) -> None:
    process = started(os.fsencode(tmp_path))
    assert process.stdin is not None
    process.stdin.write(rubbish)
    process.stdin.flush()
    assert process.wait(20) == 0
    process.stdin.close()


# -- servers that allow less ------------------------------------------------------------------

SFTP = next(
    (p for p in ("/usr/lib/openssh/sftp-server", "/usr/libexec/sftp-server") if os.path.exists(p)),
    "",
)


def forced(place: str, run: str) -> str:
    """A line for sshd: SFTP as ever, and for all else these lines of a shell."""
    script = os.path.join(place, "forced")
    with open(script, "w") as file:
        file.write(f"#!/bin/sh\ncase $SSH_ORIGINAL_COMMAND in *sftp*) exec {SFTP};; esac\n{run}\n")
    os.chmod(script, 0o755)
    return f"ForceCommand {script}"


async def _by_sftp(remote: WithProgram, root: bytes) -> None:
    for _ in range(400):
        if remote.program._ended:
            break
        await asyncio.sleep(0.02)
    assert remote.program._ended and not remote.program.is_ready
    assert isinstance(await remote.put("a", b"f", b"ours", MODE, ABSENT), Committed)
    assert standing(root) == {b"f": b"ours"}


LESS = {
    "no python": "PATH=/nowhere; eval $SSH_ORIGINAL_COMMAND",
    "nothing but a word": "echo no; exit 1",
    "what says our own words": 'echo "$SSH_ORIGINAL_COMMAND"; cat',
    "talks and talks": "yes",
    "an old python": "echo 'invalid syntax' >&2; exit 1",
}


@pytest.mark.skipif(not SFTP, reason="no sftp-server here")
@pytest.mark.parametrize("what", LESS)
def test_where_it_cannot_run_all_goes_by_sftp(
    tmp_path: Path,
    what: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sftp_program, "BEGIN_S", 3.0)
    caplog.set_level(logging.INFO, "awayfs.worker")
    with (
        tempfile.TemporaryDirectory() as place,
        serving(str(tmp_path / "sshd"), extra=forced(place, LESS[what])) as server,
    ):
        run(server, tmp_path, _by_sftp, wait=False)
    said = [one for one in caplog.messages if "no program on the server" in one]
    assert len(said) == 1, caplog.messages


@pytest.mark.parametrize(
    "given", [{"sftp_only": True}, {"extra": "MaxSessions 1"}, {"extra": "MaxSessions 2"}]
)
def test_where_nothing_but_sftp_is_allowed(tmp_path: Path, given: dict[str, Any]) -> None:
    with serving(str(tmp_path / "sshd"), **given) as server:
        run(server, tmp_path, _by_sftp, wait=False)


@pytest.mark.skipif(not SFTP, reason="no sftp-server here")
@pytest.mark.parametrize(
    "before",
    ["echo welcome", f"head -c {MOST_NOISE // 2} /dev/zero", "printf 'awayfs:1'"],
)
def test_what_a_shell_says_first_is_skipped(tmp_path: Path, before: str) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        assert isinstance(await remote.put("a", b"f", b"ours", MODE, ABSENT), Committed)

    with (
        tempfile.TemporaryDirectory() as place,
        serving(str(tmp_path / "sshd"), extra=forced(place, f"{before}; {_quoted()}")) as server,
    ):
        run(server, tmp_path, body)


def _quoted() -> str:
    return 'eval "$SSH_ORIGINAL_COMMAND"'


OLDEST = next(iter(sorted(Path.home().glob(".pyenv/versions/3.[678].*/bin"))), None)


@pytest.mark.skipif(not SFTP or OLDEST is None, reason="no old Python here")
def test_an_old_python_does(tmp_path: Path) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        assert isinstance(await remote.put("a", b"f", b"ours", MODE, ABSENT), Committed)
        over = await remote.put("b", b"f", b"new", MODE, await there(remote, b"f"))
        assert isinstance(over, Committed)
        moved = await remote.rename("c", b"f", b"g", await there(remote, b"f"), ABSENT)
        assert isinstance(moved, Committed)
        assert await remote.remove("d", b"g", await there(remote, b"g")) == Committed(None)

    command = f"PATH={OLDEST}:$PATH; {_quoted()}"
    with (
        tempfile.TemporaryDirectory() as place,
        serving(str(tmp_path / "sshd"), extra=forced(place, command)) as server,
    ):
        run(server, tmp_path, body)


@pytest.mark.skipif(
    not SFTP or os.geteuid() != 0 or shutil.which("unshare") is None, reason="needs root"
)
def test_another_directory_than_sftp_shows_is_not_used(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    inside = f"mount --bind {other} {tmp_path}/root; {_quoted()}"
    with (
        tempfile.TemporaryDirectory() as place,
        serving(
            str(tmp_path / "sshd"),
            extra=forced(place, f"export SSH_ORIGINAL_COMMAND; exec unshare -m sh -c '{inside}'"),
        ) as server,
    ):
        run(server, tmp_path, _by_sftp, wait=False)
    assert os.listdir(other) == []


def test_another_root_than_was_proved_is_left_to_sftp(server: Sshd, tmp_path: Path) -> None:
    async def body(remote: WithProgram, root: bytes) -> None:
        os.rename(root, root + b".old")
        os.mkdir(root)
        done = await remote.put("a", b"f", b"ours", MODE, ABSENT)
        assert isinstance(done, Committed)
        assert standing(root) == {b"f": b"ours"} and standing(root + b".old") == {}

    run(server, tmp_path, body)


def test_switched_off(server: Sshd, tmp_path: Path) -> None:
    root = os.fsencode(tmp_path)
    options = {**server.options, "server_program": "never"}
    remote = SftpRemote(Url(root, user=server.user, port=server.port), options)

    async def whole() -> None:
        await remote.connect()
        assert remote._parts.by_program.program._beginning is None
        await remote.close()

    asyncio.run(whole())


# -- what it may say --------------------------------------------------------------------------


class Chan:
    """A channel that goes nowhere."""

    def __init__(self) -> None:
        self.sent = b""
        self.is_over = False

    def write(self, data: bytes) -> None:
        self.sent += data

    def is_closing(self) -> bool:
        return self.is_over

    def abort(self) -> None:
        self.is_over = True


class Connection:
    """One that stands."""

    def is_closed(self) -> bool:
        return False


def ready(deaths: list[int]) -> tuple[Program, Chan]:
    """A program that counts as proved."""
    program, chan = Program("", 30, lambda *_: None, lambda: deaths.append(1)), Chan()
    program._connection = Connection()  # type: ignore[assignment]
    program.connection_made(chan)
    program._runs.set_result(None)
    program._hello.set_result(None)
    program.is_ready = True
    return program, chan


frames = some.builds(
    lambda number, status, body, wrong: (
        far.HEAD.pack(max(0, 5 + len(body) + wrong), number, status) + body
    ),
    some.integers(0, 4),
    some.integers(0, 255),
    some.one_of(some.binary(max_size=40), some.binary(min_size=12, max_size=12)),
    some.sampled_from([0] * 8 + [-3, 1, 1 << 30]),
)


@settings(max_examples=150, deadline=None)
@given(some.lists(some.one_of(frames, some.binary(max_size=30)), max_size=8))
def test_whatever_it_answers_each_request_ends(pieces: list[bytes]) -> None:
    async def whole() -> None:
        deaths: list[int] = []
        program, _ = ready(deaths)
        asked = [asyncio.ensure_future(program.ask("a", far.ASKED_PUT, b"x")) for _ in range(3)]
        await asyncio.sleep(0)
        for piece in pieces:
            program.data_received(piece, None)
        program.connection_lost(None)
        for outcome in await asyncio.gather(*asked, return_exceptions=True):
            assert isinstance(outcome, Unreachable) or outcome.status <= 15
        assert program._ended and program.window._used == 0
        assert len(deaths) <= 1

    asyncio.run(whole())


@settings(max_examples=150, deadline=None)
@given(some.integers(0, 255), some.binary(max_size=60), some.sampled_from(["put", "rename", "rm"]))
def test_whatever_an_answer_says_a_call_ends(status: int, body: bytes, what: str) -> None:
    """With an outcome, or one of the port's errors, and never with an entry that is none."""

    class Nobody:
        async def find(self, _path: bytes) -> None:
            return None

        async def put_back(self, *_given: object) -> None:
            return None

        keep = put_back

        async def root_is_there(self) -> None:
            return None

    async def whole() -> None:
        program, _ = ready([])
        clock, nobody = ServerClock(), Nobody()
        clock.stamped(2_000_000_000, 0)
        view = View(None, clock, nobody, lambda _: None)  # type: ignore[arg-type]
        view.find = nobody.find  # type: ignore[method-assign]
        by: Any = ByProgram(
            *(program, view, clock, nobody, nobody, Contents(), True, lambda _: None)  # type: ignore[arg-type]
        )
        calls = {
            "put": lambda: by.put("a", b"f", b"x", MODE, ABSENT),
            "rename": lambda: by.rename("a", b"f", b"g", Expected(b"f:1:1"), ABSENT),
            "rm": lambda: by.remove("a", b"f", Expected(b"f:1:1")),
        }
        call = asyncio.ensure_future(calls[what]())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        program.data_received(far.HEAD.pack(5 + len(body), 1, status) + body, None)
        try:
            outcome = await asyncio.wait_for(call, 5)
        except RemoteError:
            return
        assert outcome is None or isinstance(outcome, Committed | Mismatch)

    asyncio.run(whole())
