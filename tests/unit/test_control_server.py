"""The control socket: a real server in a thread, a real client, and rude ones."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from awayfs.control.client import Client
from awayfs.control.messages import ControlError, bytes_of, path_param
from awayfs.control.server import ControlServer, Done
from awayfs.core.errors import Refused, Unreachable, UsageError

HOSTILE = [
    b"plain",
    b"new\nline",
    b"\xff\xfe",
    b'quote"\\',
    b"\x1b[31m",
    "ö€😀".encode(),
    b"a\xed\xa0\x80",
]


class Served:
    """A server in a thread with handlers for the tests."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.cancelled = threading.Event()
        self.seen: list[bytes] = []

    def handlers(self) -> dict[str, Any]:
        return {
            "ping": self.ping,
            "echo": self.echo,
            "count": self.count,
            "hang": self.hang,
            "fail": self.fail,
            "many": self.many,
            "bad": self.bad,
            "at": self.at,
        }

    async def ping(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"pid": os.getpid()}

    async def echo(self, params: dict[str, Any]) -> dict[str, Any]:
        self.seen.append(bytes_of(params["path"]))
        return {"path": params["path"], "raw": bytes_of(params["path"])}

    async def at(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"path": path_param(params)}

    async def count(self, params: dict[str, Any]) -> Any:
        for done in range(params["total"]):
            yield {"done": done}
            await asyncio.sleep(0)
        yield Done({"total": params["total"]})

    async def hang(self, params: dict[str, Any]) -> dict[str, Any]:
        try:
            await asyncio.sleep(params.get("seconds", 3600))
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return {}

    async def fail(self, params: dict[str, Any]) -> dict[str, Any]:
        raise {
            "usage": UsageError("cannot\nbe"),
            "unreachable": Unreachable("no answer"),
            "refused": Refused(13),
            "os": OSError(28, "No space left on device", b"/x\xff"),
            "internal": ZeroDivisionError("oops"),
            "own": ControlError("busy it is", "busy"),
        }[params["what"]]

    async def many(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"conflicts": [{"id": n, "path": f"dir/{n}" * 4} for n in range(params["n"])]}

    async def bad(self, params: dict[str, Any]) -> dict[str, Any]:
        return {"x": object()}


@contextmanager
def serving(path: str, keepalive: float = 2.0) -> Iterator[Served]:
    served = Served(path)
    loop = asyncio.new_event_loop()
    server = ControlServer(path, served.handlers(), keepalive)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(5)
    try:
        yield served
    finally:
        asyncio.run_coroutine_threadsafe(server.close(grace=0.1), loop).result(5)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


@pytest.fixture
def served(tmp_path: Any) -> Iterator[Served]:
    with serving(str(tmp_path / "s.sock")) as served:
        yield served


def raw(path: str, data: bytes) -> list[dict[str, Any]]:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(path)
        connection.sendall(data)
        with connection.makefile("rb") as file:
            return [json.loads(file.readline()) for _ in range(data.count(b"\n"))]


def test_answers_and_keeps_the_connection(served: Served) -> None:
    with Client(served.path) as client:
        assert client.call("ping") == {"pid": os.getpid()}
        assert client.call("ping") == {"pid": os.getpid()}


@pytest.mark.parametrize("name", HOSTILE)
def test_names_come_back_as_they_were(served: Served, name: bytes) -> None:
    with Client(served.path) as client:
        reply = client.call("echo", {"path": name.decode("utf-8", "surrogateescape")})
    assert served.seen == [name]
    assert bytes_of(reply["path"]) == bytes_of(reply["raw"]) == name


def test_progress_then_result(served: Served) -> None:
    events: list[dict[str, Any]] = []
    with Client(served.path) as client:
        assert client.call("count", {"total": 5}, on_progress=events.append) == {"total": 5}
    assert events == [{"done": n} for n in range(5)]


@pytest.mark.parametrize(
    ("what", "kind", "message"),
    [
        ("usage", "usage", "cannot be"),
        ("unreachable", "unreachable", "no answer"),
        ("refused", "refused", "EACCES"),
        ("os", "os", "/x\udcff: No space left on device"),
        ("own", "busy", "busy it is"),
    ],
)
def test_errors_carry_a_kind_and_one_line(
    served: Served, what: str, kind: str, message: str
) -> None:
    with Client(served.path) as client, pytest.raises(ControlError) as caught:
        client.call("fail", {"what": what})
    assert (caught.value.kind, str(caught.value)) == (kind, message)


def test_a_failing_handler_does_not_end_the_server(served: Served) -> None:
    with Client(served.path) as client:
        for method, params in (("fail", {"what": "internal"}), ("fail", {}), ("bad", {})):
            with pytest.raises(ControlError) as caught:
                client.call(method, params)
            assert caught.value.kind == "internal"
        with pytest.raises(ControlError) as caught:
            client.call("nonsense")
        assert caught.value.kind == "unknown-method"
        assert client.call("ping")


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"nonsense\n",
        b"[]\n",
        b'{"id": 1}\n',
        b'{"id": "x", "method": "ping"}\n',
        b'{"id": 1, "method": 3}\n',
        b'{"id": 1, "method": "ping", "params": []}\n',
        b"\xff\xff\n",
        b"[" * 100_000 + b"\n",
    ],
)
def test_bad_requests_are_answered(served: Served, line: bytes) -> None:
    bad, good = raw(served.path, line + b'{"id": 9, "method": "ping"}\n')
    assert bad["error"]["kind"] == "bad-request"
    assert good["id"] == 9 and "result" in good


def test_an_endless_request_is_refused(served: Served) -> None:
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(5)
        connection.connect(served.path)
        try:
            connection.sendall(b"x" * (5 << 20))
        except OSError:
            pass
    with Client(served.path) as client:
        assert client.call("ping")


def test_ten_thousand_conflicts(served: Served) -> None:
    with Client(served.path) as client:
        assert len(client.call("many", {"n": 10_000})["conflicts"]) == 10_000


def test_a_disconnect_cancels_the_handler(served: Served) -> None:
    with Client(served.path) as client, pytest.raises(ControlError) as caught:
        client.call("hang", timeout=0.2)
    assert caught.value.kind == "no-answer"
    assert served.cancelled.wait(5)


def test_long_work_is_no_silence(tmp_path: Any) -> None:
    with serving(str(tmp_path / "s"), keepalive=0.1) as served, Client(served.path) as client:
        assert client.call("hang", {"seconds": 1.2}, timeout=0.5) == {}


def test_requests_of_one_connection_do_not_wait_for_each_other(served: Served) -> None:
    first, _ = raw(
        served.path,
        b'{"id": 1, "method": "hang", "params": {"seconds": 0.5}}\n{"id": 2, "method": "ping"}\n',
    )
    assert first["id"] == 2


@pytest.mark.parametrize("path", ["/a", "..", "a/../b", "a\0b", None, 3, "\ud800"])
def test_paths_that_leave_the_mount_are_refused(served: Served, path: Any) -> None:
    with Client(served.path) as client, pytest.raises(ControlError) as caught:
        client.call("at", {"path": path})
    assert caught.value.kind == "usage"


def test_a_path_is_tidied(served: Served) -> None:
    with Client(served.path) as client:
        assert client.call("at", {"path": "a//./b/"}) == {"path": "a/b"}


def test_the_socket_is_ours_alone(served: Served) -> None:
    status = os.stat(served.path)
    assert stat.S_IMODE(status.st_mode) == 0o600


def test_a_live_socket_is_left_alone(served: Served) -> None:
    with pytest.raises(ControlError) as caught:
        asyncio.run(ControlServer(served.path, {}).start())
    assert caught.value.kind == "in-use"
    with Client(served.path) as client:
        assert client.call("ping")


def test_a_stale_socket_is_replaced_and_removed_at_the_end(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(path)
    stale.close()
    with serving(path), Client(path) as client:
        assert client.call("ping")
    assert not os.path.exists(path)


def test_another_daemons_socket_is_not_removed(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    with serving(path):
        os.unlink(path)
        with open(path, "w"):
            pass
    assert os.path.exists(path)


def test_long_socket_paths(tmp_path: Any) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    with serving(str(deep / "s.sock")) as served, Client(served.path) as client:
        assert client.call("ping")


def test_nobody_there(tmp_path: Any) -> None:
    with pytest.raises(ControlError) as caught:
        Client(str(tmp_path / "none")).call("ping")
    assert caught.value.kind == "not-running"


@pytest.mark.skipif(os.getuid() != 0, reason="needs root to become another user")
def test_another_user_is_refused(served: Served) -> None:
    os.chmod(served.path, 0o666)
    for directory in Path(served.path).parents:  # another run may close one above those open
        if directory.stat().st_mode & 0o777 == 0o700:
            directory.chmod(0o755)
    code = (
        "import os, socket, sys\n"
        "s = socket.socket(socket.AF_UNIX); os.setuid(65534); s.connect(sys.argv[1])\n"
        "s.settimeout(5)\n"
        'try: s.sendall(b\'{"id": 1, "method": "ping"}\\n\')\n'
        "except OSError: pass\n"
        "print(s.recv(1000).decode())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, served.path],
        capture_output=True,
        text=True,
        timeout=10,
    )
    assert json.loads(done.stdout)["error"]["kind"] == "forbidden", done


def test_a_stopped_daemon_is_reported(tmp_path: Any) -> None:
    path = str(tmp_path / "s")
    code = (
        "import asyncio, sys\n"
        "from awayfs.control.server import ControlServer\n"
        "async def main():\n"
        "    await ControlServer(sys.argv[1], {}).start()\n"
        "    print('up', flush=True)\n"
        "    await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE)
    try:
        assert child.stdout is not None and child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        before = time.monotonic()
        with Client(path) as client, pytest.raises(ControlError, match="not answered") as caught:
            client.call("ping", timeout=0.3)
        assert caught.value.kind == "no-answer"
        assert time.monotonic() - before < 3
    finally:
        child.kill()
        child.wait()
        assert child.stdout is not None
        child.stdout.close()
