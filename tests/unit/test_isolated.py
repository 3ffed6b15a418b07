"""The process around an adapter: hung, killed, cancelled, orphaned, and the socket to it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import cast

import pytest

from awayfs.core.errors import Implausible, NotFound, Refused, Unreachable, UsageError
from awayfs.core.secrets import Secrets
from awayfs.core.types import ABSENT, Attributes, Committed, Kind
from awayfs.remotes import failures, isolated, progress, protocol, worker_process
from awayfs.remotes.channel import Channel
from awayfs.remotes.isolated import IsolatedRemote
from awayfs.remotes.worker import TICK_INTERVAL_S, Ticker, Tickers

STALL = 0.5


@contextlib.asynccontextmanager
async def opened(root: Path, stall: float = STALL) -> AsyncIterator[IsolatedRemote]:
    """A connected remote over ``root``."""
    remote = IsolatedRemote(f"dir:{root}", {}, stall=stall)
    await remote.connect()
    try:
        yield remote
    finally:
        await remote.close()


def run(
    root: Path, body: Callable[[IsolatedRemote], Awaitable[None]], stall: float = STALL
) -> None:
    async def whole() -> None:
        async with opened(root, stall) as remote:
            await body(remote)

    asyncio.run(whole())


def is_gone(pid: int) -> bool:
    """Ended and collected, or never there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


async def eventually(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Wait for something to come true."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        await asyncio.sleep(0.02)
    return condition()


async def longest_pause(stop: asyncio.Event) -> float:
    """How long the event loop was not free at most."""
    longest, last = 0.0, time.monotonic()
    while not stop.is_set():
        await asyncio.sleep(0.01)
        now = time.monotonic()
        longest, last = max(longest, now - last), now
    return longest


def test_a_hung_worker_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")

    async def body(remote: IsolatedRemote) -> None:
        old = remote.worker_pid
        assert old is not None
        os.kill(old, signal.SIGSTOP)
        stop = asyncio.Event()
        pause = asyncio.create_task(longest_pause(stop))
        began = time.monotonic()
        answers = await asyncio.gather(
            remote.stat(b"file"),
            remote.list(b""),
            remote.make("op1", b"new", 0o040000, Attributes()),  # type: ignore[arg-type]
            return_exceptions=True,
        )
        took = time.monotonic() - began
        stop.set()
        assert all(isinstance(answer, Unreachable) for answer in answers)
        assert STALL * 0.9 < took < STALL + 1.0
        assert await pause < 0.3
        began = time.monotonic()
        with pytest.raises(Unreachable):
            await remote.stat(b"file")
        assert time.monotonic() - began < 0.1
        await remote.connect()
        assert remote.worker_pid not in (None, old)
        assert (await remote.stat(b"file")).size == 1
        assert await eventually(lambda: is_gone(old))

    run(tmp_path, body)


def test_a_killed_worker_is_noticed_at_once(tmp_path: Path) -> None:
    async def body(remote: IsolatedRemote) -> None:
        assert remote.worker_pid is not None
        os.kill(remote.worker_pid, signal.SIGSTOP)
        call = asyncio.create_task(remote.probe())
        await asyncio.sleep(0.05)
        began = time.monotonic()
        os.kill(remote.worker_pid, signal.SIGKILL)
        with pytest.raises(Unreachable, match="ended"):
            await call
        assert time.monotonic() - began < 0.3
        await remote.connect()
        await remote.probe()

    run(tmp_path, body)


def test_a_worker_that_ends_while_nobody_asks_is_told_once(tmp_path: Path) -> None:
    async def body(remote: IsolatedRemote) -> None:
        lost: list[str] = []
        remote.on_lost = lost.append
        assert remote.worker_pid is not None
        os.kill(remote.worker_pid, signal.SIGKILL)
        assert await eventually(lambda: bool(lost))
        await remote.connect()
        await asyncio.sleep(0.2)
        assert lost == ["the worker process ended"]
        remote.abandon("on purpose")
        await asyncio.sleep(0.2)
        assert len(lost) == 1

    run(tmp_path, body)


def test_connect_to_a_worker_that_says_nothing(tmp_path: Path) -> None:
    async def whole() -> None:
        remote = IsolatedRemote(
            f"dir:{tmp_path}",
            {},
            connect_deadline=0.4,
            command=(sys.executable, "-c", "import time; time.sleep(60)"),
        )
        began = time.monotonic()
        with pytest.raises(Unreachable):
            await remote.connect()
        assert time.monotonic() - began < 2.0
        await remote.close()

    asyncio.run(whole())


def test_a_worker_that_cannot_be_started(tmp_path: Path) -> None:
    async def whole() -> None:
        for command in (("/nonexistent/python",), (sys.executable, "-c", "raise SystemExit(3)")):
            remote = IsolatedRemote(f"dir:{tmp_path}", {}, command=command)
            with pytest.raises(Unreachable):
                await remote.connect()
            await remote.close()

    asyncio.run(whole())


def test_stuck_workers_do_not_pile_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process in uninterruptible sleep outlives its SIGKILL; here the signal is withheld."""
    pids = []

    async def body(remote: IsolatedRemote) -> None:
        monkeypatch.setattr(subprocess.Popen, "kill", lambda self: pids.append(self.pid))
        for _ in range(isolated.MOST_LEFTOVERS):
            assert remote.worker_pid is not None
            os.kill(remote.worker_pid, signal.SIGSTOP)
            with pytest.raises(Unreachable):
                await remote.probe()
            if len(pids) < isolated.MOST_LEFTOVERS:
                await remote.connect()
        with pytest.raises(Unreachable, match="stuck"):
            await remote.connect()
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        assert await eventually(lambda: all(is_gone(pid) for pid in pids))
        await remote.connect()
        await remote.probe()
        monkeypatch.undo()

    run(tmp_path, body, stall=0.3)


def test_long_work_that_moves_is_not_given_up(tmp_path: Path) -> None:
    """A stall deadline far below what the whole takes."""
    with (tmp_path / "big").open("wb") as file:
        for _ in range(96):
            file.write(os.urandom(1 << 20))

    async def body(remote: IsolatedRemote) -> None:
        fd = os.open(tmp_path, os.O_TMPFILE | os.O_RDWR)
        began = time.monotonic()
        for _ in range(3):
            await asyncio.gather(
                *(remote.digest(b"big") for _ in range(6)), remote.fetch(b"big", 0, 1 << 40, fd)
            )
        assert time.monotonic() - began > 0.4
        os.close(fd)

    run(tmp_path, body, stall=0.4)


ONE_AFTER_THE_OTHER = """
import asyncio, socket, sys
import msgspec
from awayfs.remotes import protocol as p
from awayfs.remotes.channel import Channel
async def main():
    queue = asyncio.Queue()
    def on_frame(document):
        message = p.decode_to_worker(document)
        if isinstance(message, p.Request):
            queue.put_nowait(message)
    channel = Channel(socket.socket(fileno=int(sys.argv[-1])), on_frame, lambda: sys.exit())
    while True:
        request = await queue.get()
        for _ in range(12):
            channel.send(p.encode(p.Tick(request.id, 0)))
            await asyncio.sleep(0.1)
        if request.call.path == b"hung":
            await asyncio.sleep(3600)
        channel.send(p.encode(p.Answer(request.id, msgspec.Raw(p.encode({})))))
asyncio.run(main())
"""


class Moved(protocol.DigestCall, frozen=True, tag="digest"):
    """A transfer that is answered with nothing."""

    Result = dict


def test_a_transfer_may_wait_behind_others_that_move(tmp_path: Path) -> None:
    """As on a slow link; where nothing moves any more, all are given up after one deadline."""

    async def body() -> None:
        command = (sys.executable, "-c", ONE_AFTER_THE_OTHER)
        remote = IsolatedRemote(f"dir:{tmp_path}", {}, command=command)
        process = await remote._start(Secrets())
        await process.call(Moved(b"f"), 30.0)  # it has started
        both = [process.call(Moved(b"f"), 0.5) for _ in range(2)]
        assert await asyncio.gather(*both) == [{}, {}]
        began = time.monotonic()
        stuck = [process.call(Moved(name), 0.5) for name in (b"hung", b"behind")]
        results = await asyncio.gather(*stuck, return_exceptions=True)
        assert all(isinstance(result, Unreachable) for result in results)
        assert 1.2 < time.monotonic() - began < 10
        await remote.close()

    asyncio.run(body())


def test_metadata_does_not_wait_for_bulk(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        for _ in range(64):
            file.write(os.urandom(1 << 20))

    async def body(remote: IsolatedRemote) -> None:
        bulk = [asyncio.create_task(remote.digest(b"big")) for _ in range(12)]
        await asyncio.sleep(0.02)
        for _ in range(20):
            await asyncio.wait_for(remote.stat(b"big"), 1.0)
        assert not all(task.done() for task in bulk)
        await asyncio.gather(*bulk)

    run(tmp_path, body, stall=2.0)


def test_cancelling_stops_the_work(tmp_path: Path) -> None:
    with (tmp_path / "big").open("wb") as file:
        for _ in range(400):
            file.write(b"x" * (1 << 20))

    async def body(remote: IsolatedRemote) -> None:
        fd = os.memfd_create("cache")
        for call in (remote.digest(b"big"), remote.fetch(b"big", 0, 1 << 40, fd)):
            task = asyncio.create_task(call)
            await asyncio.sleep(0.05)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        before = os.pread(fd, 400 << 20, 0).count(b"x")
        await asyncio.sleep(0.3)
        assert 0 < os.pread(fd, 400 << 20, 0).count(b"x") == before
        pid = remote.worker_pid
        await remote.probe()
        assert remote.worker_pid == pid

    run(tmp_path, body, stall=2.0)


def test_the_worker_ends_with_the_daemon(tmp_path: Path) -> None:
    """Also when it is stopped, and when the daemon gets SIGKILL."""
    script = (
        "import asyncio, sys\n"
        "from awayfs.remotes.isolated import IsolatedRemote\n"
        "async def main():\n"
        "    remote = IsolatedRemote('dir:' + sys.argv[1], {})\n"
        "    await remote.connect()\n"
        "    print(remote.worker_pid, flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    for stopped in (False, True):
        daemon = subprocess.Popen(
            [sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE
        )
        assert daemon.stdout is not None
        worker = int(daemon.stdout.readline())
        if stopped:
            os.kill(worker, signal.SIGSTOP)
        daemon.kill()
        daemon.wait()
        daemon.stdout.close()
        until = time.monotonic() + 5
        while _runs(worker) and time.monotonic() < until:
            time.sleep(0.02)
        assert not _runs(worker)


def _runs(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def test_the_worker_holds_nothing_but_its_socket(tmp_path: Path) -> None:
    secret = "token=very-secret"
    with (tmp_path / "open elsewhere").open("w") as file:
        os.set_inheritable(file.fileno(), True)

        async def whole() -> None:
            remote = IsolatedRemote(f"dir:{tmp_path}", {"password": secret})
            await remote.connect()
            here = f"/proc/{remote.worker_pid}"
            targets = [
                os.readlink(f"{here}/fd/{n}") for n in os.listdir(f"{here}/fd") if int(n) > 2
            ]
            allowed = ("socket:", "anon_inode:", "pipe:", "/dev/urandom")
            assert all(target.startswith(allowed) for target in targets), targets
            for name in ("cmdline", "environ"):
                assert secret.encode() not in Path(f"{here}/{name}").read_bytes()
            assert os.readlink(f"{here}/cwd") == "/"
            await remote.close()

        asyncio.run(whole())


def test_no_descriptor_leaks(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x" * 1000)

    async def body(remote: IsolatedRemote) -> None:
        async def work() -> None:
            fd = os.memfd_create("cache")
            await remote.fetch(b"file", 0, 1000, fd)
            await remote.list(b"")
            for call in (remote.stat(b"gone"), remote.fetch(b"gone", 0, 1, fd)):
                with contextlib.suppress(NotFound):
                    await call
            os.close(fd)

        await work()
        theirs, ours = f"/proc/{remote.worker_pid}/fd", "/proc/self/fd"
        before = len(os.listdir(theirs)), len(os.listdir(ours))
        for _ in range(100):
            await work()
        after = len(os.listdir(theirs)), len(os.listdir(ours))
        assert all(now <= then + 3 for now, then in zip(after, before, strict=True)), (
            before,
            after,
        )
        for _ in range(5):
            remote.abandon("again")
            await remote.connect()
        assert await eventually(lambda: len(os.listdir(ours)) == before[1])

    run(tmp_path, body, stall=5.0)


def test_a_flood_of_big_calls_goes_through(tmp_path: Path) -> None:
    """More than fits into the socket at once, in both directions, with descriptors."""

    async def body(remote: IsolatedRemote) -> None:
        (tmp_path / "file").write_bytes(b"0123456789")
        for number in range(3000):
            (tmp_path / f"{number:0200d}").touch()
        fds = [os.memfd_create(str(n)) for n in range(200)]
        answers = await asyncio.gather(
            *(remote.fetch(b"file", n % 10, 1, fd) for n, fd in enumerate(fds)),
            *(remote.list(b"") for _ in range(5)),
            *(remote.discard_staged("op", b"d" * 200 + b"/" + b"x" * 100_000) for _ in range(50)),
            return_exceptions=True,
        )
        for n, fd in enumerate(fds):
            assert os.pread(fd, 1, n % 10) == b"%d" % (n % 10)
            os.close(fd)
        assert all(len(names) == 3001 for names in answers[200:205])  # type: ignore[arg-type]

    run(tmp_path, body, stall=20.0)


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("u"),
        NotFound("n"),
        Refused(13, "r"),
        Implausible("i"),
        UsageError("use"),
        OSError(28, "full"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_arrive_as_what_they_were(error: Exception) -> None:
    document = protocol.encode(failures.failure_of(7, error))
    message = protocol.decode_from_worker(document)
    assert isinstance(message, failures.Failure)
    back = failures.error_of(message)
    assert type(back) is type(error)
    assert getattr(back, "errno", None) == getattr(error, "errno", None)
    assert str(back) == str(error)


def test_a_bug_in_the_adapter_is_an_answer_not_to_be_believed() -> None:
    back = failures.error_of(failures.failure_of(1, ValueError("oops")))
    assert isinstance(back, Implausible)
    assert "oops" in str(back)


def test_a_worker_that_talks_nonsense_is_ended(tmp_path: Path) -> None:
    speak = (
        "import socket, sys, time; s = socket.socket(fileno=int(sys.argv[-1])); {}; time.sleep(9)"
    )

    async def whole() -> None:
        for talk in ("s.send(b'\\xff' * 100)", "s.send(b'\\x01\\0\\0\\0\\xc1')", "s.close()"):
            remote = IsolatedRemote(
                f"dir:{tmp_path}", {}, command=(sys.executable, "-c", speak.format(talk))
            )
            began = time.monotonic()
            with pytest.raises(Unreachable):
                await remote.connect()
            assert time.monotonic() - began < 4.0
            await remote.close()

    asyncio.run(whole())


def test_a_held_up_event_loop_does_not_blame_the_worker(tmp_path: Path) -> None:
    async def busy(remote: IsolatedRemote) -> None:
        calls = [asyncio.create_task(remote.stat(b"")) for _ in range(10)]
        await asyncio.sleep(0)
        time.sleep(STALL * 2)
        await asyncio.gather(*calls)

    run(tmp_path, busy)


def test_close_and_connect_again(tmp_path: Path) -> None:
    async def body(remote: IsolatedRemote) -> None:
        pid = remote.worker_pid
        assert pid is not None
        await remote.close()
        await remote.close()
        assert await eventually(lambda: is_gone(pid))
        with pytest.raises(Unreachable):
            await remote.probe()
        await remote.connect()
        outcome = await remote.make("op", b"d", Kind.DIRECTORY, Attributes())
        assert isinstance(outcome, Committed)
        assert await remote.remove("op2", b"gone", ABSENT) == Committed(None)

    run(tmp_path, body)


def test_contents_that_are_compared_wait_for_their_turn_where_no_deadline_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More of them than threads, each slow but alive: none is taken for a dead server."""
    monkeypatch.setattr(worker_process, "LONGEST_QUEUE_S", 0.5)
    for number in range(8):
        (tmp_path / f"{number}").write_bytes(b"x" * 500_000)

    async def body(remote: IsolatedRemote) -> None:
        remote.limit(None, 1_000_000)
        digests = await asyncio.gather(*(remote.digest(b"%d" % n) for n in range(8)))
        assert len({digest.blake2b for digest in digests}) == 1

    run(tmp_path, body)


def at_rest(
    tmp_path: Path, body: Callable[[IsolatedRemote, list[str]], Awaitable[None]], rests: bool = True
) -> None:
    """A remote that may keep its worker, connected, and what it tells of lost connections."""

    async def whole() -> None:
        remote, lost = IsolatedRemote(f"dir:{tmp_path}", {}, stall=STALL, rests=rests), list[str]()
        remote.on_lost = lost.append
        await remote.connect()
        try:
            await body(remote, lost)
        finally:
            await remote.close()

    asyncio.run(whole())


def test_a_worker_stays_while_its_server_was_left(tmp_path: Path) -> None:
    async def body(remote: IsolatedRemote, lost: list[str]) -> None:
        pid = remote.worker_pid
        await remote.rest()
        await remote.rest()
        assert remote.worker_pid == pid
        with pytest.raises(Unreachable):
            await remote.stat(b"")
        await remote.connect()
        await remote.stat(b"")
        assert remote.worker_pid == pid and lost == []

    at_rest(tmp_path, body)


def test_what_is_cancelled_before_it_has_begun_is_answered(tmp_path: Path) -> None:
    async def body(remote: IsolatedRemote, lost: list[str]) -> None:
        process = remote._process
        assert process is not None
        looking = asyncio.ensure_future(remote.stat(b""))
        await asyncio.sleep(0)
        looking.cancel()
        await asyncio.wait([looking])
        assert looking.cancelled() and await eventually(lambda: not process._pending)
        assert process.alive and lost == []

    at_rest(tmp_path, body)


def test_one_that_may_not_stay_is_ended(tmp_path: Path) -> None:
    async def body(remote: IsolatedRemote, lost: list[str]) -> None:
        pid = remote.worker_pid
        assert pid is not None
        await remote.rest()
        assert remote.worker_pid is None and await eventually(lambda: is_gone(pid))
        await remote.connect()
        assert remote.worker_pid not in (None, pid) and lost == []

    at_rest(tmp_path, body, rests=False)


def test_a_worker_that_does_not_answer_may_not_stay(tmp_path: Path) -> None:
    async def body(remote: IsolatedRemote, lost: list[str]) -> None:
        pid = remote.worker_pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        looking = asyncio.ensure_future(remote.stat(b""))
        await asyncio.sleep(0)
        await remote.rest()
        with pytest.raises(Unreachable):
            await looking
        assert await eventually(lambda: is_gone(pid)) and lost == []

    at_rest(tmp_path, body)


def test_what_dies_at_rest_is_no_news(tmp_path: Path) -> None:
    async def body(remote: IsolatedRemote, lost: list[str]) -> None:
        pid = remote.worker_pid
        assert pid is not None
        await remote.rest()
        os.kill(pid, signal.SIGKILL)
        assert await eventually(lambda: remote.worker_pid is None) and lost == []
        await remote.connect()
        again = remote.worker_pid
        assert again is not None
        os.kill(again, signal.SIGKILL)
        assert await eventually(lambda: lost != [])
        await remote.connect()

    at_rest(tmp_path, body)


class Heard:
    """In the place of the socket to the daemon: the ticks that went out."""

    def __init__(self) -> None:
        self.ticks: list[protocol.Tick] = []

    def send(self, document: bytes) -> None:
        tick = protocol.decode_from_worker(document)
        assert isinstance(tick, protocol.Tick)
        self.ticks.append(tick)


def test_a_short_call_says_nothing_of_its_progress() -> None:
    async def body() -> None:
        heard = Heard()
        tickers = Tickers(asyncio.get_running_loop(), cast(Channel, heard))
        short, long = Ticker(tickers, 1), Ticker(tickers, 2)
        for ticker in (short, long):
            ticker(0.0)
            ticker(30.0)
            ticker(progress.KEEP)
        tickers.ended(short)
        assert heard.ticks == []
        await asyncio.sleep(2 * TICK_INTERVAL_S)
        assert heard.ticks == [protocol.Tick(2, 30.0)]

    asyncio.run(body())


def test_a_long_call_tells_from_any_thread_that_it_moves() -> None:
    async def body() -> None:
        heard = Heard()
        ticker = Ticker(Tickers(asyncio.get_running_loop(), cast(Channel, heard)), 1)

        def move() -> None:
            for allow in (0.0, 0.0, 7.0):
                time.sleep(1.1 * TICK_INTERVAL_S)
                ticker(allow)
            time.sleep(0.2 * TICK_INTERVAL_S)
            ticker(0.0)

        await asyncio.to_thread(move)
        await asyncio.sleep(2 * TICK_INTERVAL_S)
        assert [tick.allow for tick in heard.ticks] == [0.0, 0.0, 7.0, 0.0]

    asyncio.run(body())


def test_a_call_without_a_descriptor_to_send_blames_no_worker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where this process may open no more files, the call fails, and no answer is waited for."""

    def none_left(_fd: int) -> int:
        raise OSError(errno.EMFILE, "too many open files")

    async def play() -> None:
        async with opened(tmp_path, stall=0.2) as remote:
            (tmp_path / "f").write_bytes(b"there")
            fd = os.memfd_create("landing")
            with monkeypatch.context() as patched:
                patched.setattr(os, "dup", none_left)
                with pytest.raises(OSError, match="too many"):
                    await remote.fetch(b"f", 0, 5, fd)
            pid = remote.worker_pid
            await asyncio.sleep(0.5)
            assert pid is not None and remote.worker_pid == pid
            assert (await remote.fetch(b"f", 0, 5, fd)).length == 5
            os.close(fd)

    asyncio.run(play())


def test_uploads_at_once_leave_room_for_other_descriptors() -> None:
    """Each has one here, and one in the worker."""
    program = (
        "import asyncio, resource\n"
        "from awayfs.core.types import Attributes\n"
        "from awayfs.remotes import protocol as p\n"
        "from awayfs.remotes.slots import Slots\n"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))\n"
        "slots = Slots()\n"
        "slots.allow(32, 512)\n"
        "small = p.StageCall('op', b'', 1, Attributes(), 0, b'')\n"
        "print(slots.of(small)._value)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert int(done.stdout) == 64
