"""The commands against a real control server with made-up handlers, without a mount."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner, Result

from awayfs.cli import show
from awayfs.cli import volumes as cli_volumes
from awayfs.cli.main import COMMANDS, main, mount_helper
from awayfs.control import mountinfo, mounts, orders, paths, volumes
from awayfs.control.messages import ControlError
from awayfs.control.mountinfo import MountEntry
from awayfs.control.server import ControlServer, Done
from awayfs.core.orders import Scope
from awayfs.store.store import Store

URL = "sftp://me@nas/data"
PLACE = b"/awayfs-test/share"
M = PLACE.decode()
HOSTILE = "a\x1b[31m\n\u202eb\udcff"
SAFE = r"a\x1b[31m\n\u202eb\xff"

STATUS = {
    "volume": "v",
    "url": URL,
    "mountpoint": M,
    "pid": 1,
    "mode": "disconnected",
    "by_hand": True,
    "cause": "asked for",
    "since_ns": time.time_ns(),
    "pending": {"records": 3, "bytes": 2048, "parked": 1},
    "cache": {"bytes": 1 << 30, "limit": 20 << 30, "nodes": 1234},
    "conflicts": 2,
    "last_contact_ns": None,
    "server": "nas",
    "replaying": False,
}


class Daemon:
    """Answers with ``replies``, remembers what was asked, can be told to fail."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self.replies: dict[str, Any] = {"status": STATUS}
        self.error: ControlError | None = None
        self.read: bytes = b""

    def handlers(self) -> dict[str, Any]:
        names = (
            "status offline online auto unpin pins journal_list journal_show journal_drop "
            "journal_export conflicts resolve why diff discard cull cache unmount history undo"
        )
        plain = {name: self._plain(name) for name in names.split()}
        plain |= {name: self._telling(name) for name in ("diff", "discard")}
        return plain | {name: self._working(name) for name in ("pin", "hoard", "sync")}

    def _note(self, name: str, params: dict[str, Any]) -> Any:
        self.asked.append((name, params))
        if "with" in params:
            with open(params["with"], "rb") as file:
                self.read = file.read()
        if self.error:
            raise self.error
        reply = self.replies.get(name, {})
        if name == "status" and "path" in params:
            path = {"path": params["path"], "state": ["dirty"], "pin": 5, "version": "x"}
            return {**reply, "path": {**path, "error": None}}
        return reply

    def _plain(self, name: str) -> Callable[[dict[str, Any]], Any]:
        async def handler(params: dict[str, Any]) -> dict[str, Any]:
            return dict(self._note(name, params))

        return handler

    def _telling(self, name: str) -> Callable[[dict[str, Any]], Any]:
        """What is told on the way is a part of the answer."""

        async def handler(params: dict[str, Any]) -> Any:
            reply = dict(self._note(name, params))
            yield {"changes": reply.pop("changes", [])}
            yield Done(reply)

        return handler

    def _working(self, name: str) -> Callable[[dict[str, Any]], Any]:
        async def handler(params: dict[str, Any]) -> Any:
            yield {"done": 1, "total": 2, "bytes": 10, "path": HOSTILE}
            yield Done(self._note(name, params))

        return handler


@pytest.fixture(autouse=True)
def _own_directories(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(mountinfo, "read", list)


def entry(place: bytes = PLACE, device: str = "0:99") -> MountEntry:
    options = f"rw,user_id={os.getuid()}"
    return MountEntry(device, b"/", place, "fuse.awayfs", URL.encode(), options)


@pytest.fixture
def daemon(monkeypatch: pytest.MonkeyPatch) -> Iterator[Daemon]:
    with serving("v", PLACE) as daemon:
        monkeypatch.setattr(mountinfo, "read", lambda: [entry()])
        yield daemon


@contextmanager
def serving(volume: str, place: bytes) -> Iterator[Daemon]:
    """A daemon of a volume, as far as its control socket goes."""
    daemon = Daemon()
    paths.ensure_state()
    mounts.announce(volume, URL, place)
    loop = asyncio.new_event_loop()
    server = ControlServer(paths.socket_file(volume), daemon.handlers())
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(server.start(), loop).result(5)
    yield daemon
    asyncio.run_coroutine_threadsafe(server.close(0.1), loop).result(5)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(5)
    loop.close()


def run(*args: str | bytes) -> Result:
    words = [arg if isinstance(arg, str) else os.fsdecode(arg) for arg in args]
    return CliRunner().invoke(main, words)


def worked(*args: str | bytes) -> str:
    result = run(*args)
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert result.stderr == ""
    return result.stdout


def data(*args: str | bytes) -> Any:
    return json.loads(worked(*args, "--json"))


def failed(*args: str | bytes, status: int = 1) -> str:
    """The one line of a command that must fail."""
    result = run(*args)
    assert result.exit_code == status, (result.stdout, result.stderr)
    assert result.stderr.startswith("awayfs: ")
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


# usage


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str) -> None:
    if command != "demo":
        assert "Usage:" in worked(command, "--help")


def test_help_and_version() -> None:
    assert all(command in worked("--help") for command in COMMANDS)
    assert worked("--version").startswith("awayfs")


@pytest.mark.parametrize(
    "args",
    [
        ["nonsense"],
        ["mount"],
        ["mount", "dir:/x"],
        ["status", "--nonsense"],
        ["pin"],
        ["pin", "x", "--priority", "high"],
        ["resolve", "x"],
        ["resolve", "x", "--keep", "mine"],
        ["resolve", "x", "--keep", "both", "--with", "f"],
        ["journal", "show", "one"],
        ["why"],
        ["why", ""],
        ["mount", "dir:/x", "/m", "-o", "bogus"],
        ["mount", "dir:/x", "/m", "-o", "fresh=soon"],
        ["mount", "gopher://x", "/m"],
        ["mount", "sftp://u:pw@h/", "/m"],
    ],
)
def test_usage_errors_are_status_2(args: list[str]) -> None:
    failed(*args, status=2)


def test_an_unknown_option_is_named() -> None:
    assert "bogus" in failed("mount", "dir:/x", "/m", "-o", "ro,bogus=1", status=2)


# status


def test_status_with_nothing_mounted() -> None:
    assert "nothing is mounted" in worked("status")
    assert data("status") == []


def test_status(daemon: Daemon) -> None:
    text = worked("status")
    for part in (M, "disconnected", "3 changes, 2.0 KiB, 1 parked", "1.0 GiB of 20.0 GiB", "never"):
        assert part in text
    assert data("status") == [STATUS]


@pytest.mark.parametrize(
    ("sending", "text"),
    [
        (None, "1 parked (see 'awayfs journal list'), being sent\n"),
        (
            {"records_per_s": 12.4, "bytes_per_s": 2048, "left_s": 75.2},
            "being sent: 12/s, 2.0 KiB/s, about 1 min 15 s left",
        ),
        ({"records_per_s": 3.0, "bytes_per_s": 0, "left_s": None}, "being sent: 3/s, 0 B/s\n"),
        ({"records_per_s": 0.0, "bytes_per_s": 0, "left_s": None}, "being sent\n"),
    ],
)
def test_status_while_changes_are_sent(
    daemon: Daemon, sending: dict[str, Any] | None, text: str
) -> None:
    daemon.replies["status"] = {**STATUS, "replaying": True, "sending": sending}
    assert text in worked("status")


def test_status_of_a_path(daemon: Daemon) -> None:
    reply = data("status", M + "/dir/f")
    assert reply["path"]["path"] == "dir/f" and reply["mode"] == "disconnected"
    assert "dirty" in worked("status", M + "/dir/f")
    assert daemon.asked[0] == ("status", {"path": "dir/f"})


def test_status_of_a_dead_mount(monkeypatch: pytest.MonkeyPatch) -> None:
    paths.ensure_state()
    mounts.announce("v", URL, PLACE)
    monkeypatch.setattr(mountinfo, "read", lambda: [entry()])
    result = run("status", "--json")
    (reply,) = json.loads(result.stdout)
    assert (result.exit_code, reply["mode"], reply["url"]) == (1, None, URL)
    assert "awayfs umount" in failed("status")


@pytest.mark.parametrize(
    "command", ["why", "discard", "unpin", "pin", "conflicts", "hoard", "sync"]
)
def test_a_path_outside_any_mount(command: str, daemon: Daemon) -> None:
    assert "not inside an awayfs mount" in failed(command, "/etc")


def test_invalid_bytes_go_through(daemon: Daemon) -> None:
    daemon.replies["why"] = {"path": "\udcff", "text": "t"}
    assert data("why", PLACE + b"/\xff\n")["path"] == "\udcff"
    assert daemon.asked == [("why", {"path": "\udcff\n"})]


def test_an_old_daemon(daemon: Daemon) -> None:
    daemon.error = ControlError("no such method", "unknown-method")
    assert "does not offer why" in failed("why", M)


# modes


@pytest.mark.parametrize("mode", ["offline", "online", "auto"])
@pytest.mark.parametrize("scope", [None, M, "server:nas", "server:NAS"])
def test_switching(daemon: Daemon, mode: str, scope: str | None) -> None:
    daemon.replies[mode] = {"mode": "connected"}
    args = [mode] if scope is None else [mode, scope]
    assert "connected" in worked(*args)
    reply = data(*args)
    one = reply if scope == M else reply[0]
    assert one == {"volume": "v", "mountpoint": M, "mode": "connected"}
    word = {None: {"scope": "all"}, M: {}}.get(scope, {"scope": "server"})
    assert daemon.asked[0] == (mode, word)
    written = (orders.read(Scope.ALL), orders.read(Scope.SERVER, "nas"))
    assert [bool(order) for order in written] == [
        mode == "offline" and scope is None,
        mode == "offline" and word == {"scope": "server"},
    ]


@pytest.mark.parametrize("scope", ["server:other", "server:", M + "/sub", "/etc"])
@pytest.mark.parametrize("mode", ["offline", "online", "auto"])
def test_scopes_that_mean_nothing(daemon: Daemon, mode: str, scope: str) -> None:
    failed(mode, scope, status=2)
    assert daemon.asked == []
    assert not os.path.exists(paths.orders_dir())


def test_what_is_mounted_later_obeys_too() -> None:
    assert "what is mounted later" in worked("offline")
    order = orders.read(Scope.ALL)
    assert order is not None and order.until_ns is None
    volumes.note_mounted("v", URL)
    assert "what is mounted later" in worked("offline", "server:nas", "--for", "1h")
    assert "what is mounted later" in worked("auto")
    assert orders.read(Scope.ALL) is None
    order = orders.read(Scope.SERVER, "nas")
    assert order is not None and order.until_ns is not None
    assert 3590e9 < order.until_ns - time.time_ns() <= 3600e9


def test_the_history_of_modes(daemon: Daemon) -> None:
    entry = {"mode": "disconnected", "cause": HOSTILE, "since_ns": 1, "by_hand": True}
    daemon.replies["status"] = {**STATUS, "history": [entry]}
    assert f"disconnected, by hand: {SAFE}" in worked("status", M, "--history")
    assert "history" not in worked("status", M)


def test_offline_for_a_time(daemon: Daemon) -> None:
    until = time.time_ns() + 3600 * 10**9
    daemon.replies["offline"] = {"mode": "disconnected", "until_ns": until, "cause": HOSTILE}
    said = worked("offline", M, "--for", "1h")
    ends, today = time.localtime(until / 1e9), time.strftime("%F")
    is_today = time.strftime("%F", ends) == today
    assert time.strftime(" until %H:%M:%S" if is_today else " until %F %H:%M", ends) in said
    assert SAFE in said
    ((method, params),) = daemon.asked
    assert (method, list(params)) == ("offline", ["until_ns"])
    assert abs(params["until_ns"] - until) < 60 * 10**9


@pytest.mark.parametrize(
    "words",
    [
        ["--for", "1h", "--until", "23:59"],
        *(["--for", text] for text in ("", "0s", "-1h", "soon", "1", "1h 3x", "10000d", "9" * 40)),
        *(
            ["--until", text]
            for text in ("", "25:00", "2020-01-01 08:00", "9999-12-31", "00:00:00")
        ),
    ],
)
def test_times_that_mean_nothing(daemon: Daemon, words: list[str]) -> None:
    failed("offline", *words, status=2)
    assert daemon.asked == []
    assert not os.path.exists(paths.orders_dir())


def test_sync(daemon: Daemon) -> None:
    done = {"pending": 0, "parked": 0, "conflicts": 0, "stuck": False, "mode": "connected"}
    daemon.replies["sync"] = done
    assert "everything is sent" in worked("sync", "--wait")
    assert daemon.asked == [("sync", {"wait": True})]
    assert data("sync", M + "/d") == {"volume": "v", "mountpoint": M, **done}
    daemon.replies["sync"] = {**done, "pending": 2, "conflicts": 1, "stuck": True}
    assert "1 conflict" in failed("sync", "--wait")
    assert run("sync").exit_code == 0


def test_deletions_are_accepted_for_one_volume_only(daemon: Daemon) -> None:
    worked("sync", M, "--accept-deletions")
    assert daemon.asked == [("sync", {"wait": False, "path": "", "accept_deletions": True})]
    assert run("sync", "--accept-deletions").exit_code == 2


ALL = "status offline online auto pins hoard sync conflicts diff cache cull"
FIRST = b"/awayfs-test/a"


@pytest.mark.parametrize("command", [*ALL.split(), "journal list"])
@pytest.mark.parametrize("how", ["dead", "failing"])
def test_a_mount_that_fails_does_not_keep_the_others(
    daemon: Daemon, how: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mountinfo, "read", lambda: [entry(FIRST, "0:98"), entry()])
    method = command.replace(" ", "_")
    if how == "dead":
        mounts.announce("a", URL, FIRST)
        assert FIRST.decode() in failed(*command.split())
    else:
        with serving("a", FIRST) as first:
            first.error = ControlError("no such luck")
            assert f"{FIRST.decode()}: no such luck" in failed(*command.split())
        assert [name for name, _ in first.asked] == [method]
    assert [name for name, _ in daemon.asked] == [method]


def test_an_answer_that_is_none(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """As of a daemon of another version, or of something else at the socket."""
    address = paths.socket_file("a")
    mounts.announce("a", URL, FIRST)
    monkeypatch.setattr(mountinfo, "read", lambda: [entry(FIRST, "0:98"), entry()])
    for answer in (b'{"id": 1, "result": [3]}\n', b"[]\n", b"\xff\n"):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
            listening.bind(address)
            listening.listen()
            thread = threading.Thread(target=_answer, args=(listening, answer), daemon=True)
            thread.start()
            assert FIRST.decode() in failed("pins")
            thread.join(5)
        os.unlink(address)
    assert [name for name, _ in daemon.asked] == ["pins"] * 3


def _answer(listening: socket.socket, answer: bytes) -> None:
    """Answer the first request that comes, whoever only looks whether somebody listens."""
    while True:
        connection, _ = listening.accept()
        with connection:
            if connection.recv(1 << 16):
                connection.sendall(answer)
                return


# pins


def test_pin(daemon: Daemon) -> None:
    daemon.replies["pin"] = {"files": 2, "bytes": 2048, "failed": []}
    told = worked("pin", M + "/a", M + "/b", "--priority", "7", "--no-walk")
    assert told.count("2 files here, 2.0 KiB fetched now") == 2
    assert daemon.asked == [("pin", {"path": p, "priority": 7, "walk": False}) for p in "ab"]
    assert data("pin", M + "/a")["files"] == 2


def test_a_pin_that_could_not_be_fetched(daemon: Daemon) -> None:
    why = {"path": HOSTILE, "why": "gone"}
    daemon.replies["pin"] = {"files": 0, "bytes": 0, "failed": [why]}
    assert f"1 file could not be fetched: {SAFE}: gone" in failed("pin", M)


def test_one_bad_path_does_not_stop_the_others(daemon: Daemon) -> None:
    failed("unpin", "/etc", M + "/a")
    assert daemon.asked == [("unpin", {"path": "a"})]


def test_pins(daemon: Daemon) -> None:
    assert "nothing is pinned" in worked("pins")
    pin = {"path": HOSTILE, "priority": 5, "complete": False, "missing": 3}
    daemon.replies["pins"] = {"pins": [pin]}
    assert f"3 missing  {M}/{SAFE}" in worked("pins")
    assert data("pins") == {"pins": [{"mountpoint": M, **pin}]}


def test_hoard_check(daemon: Daemon) -> None:
    missing = [{"path": HOSTILE, "why": "not fetched"}]
    daemon.replies["hoard"] = {"files": 1, "bytes": 1, "missing": missing, "failed": []}
    assert f"{SAFE}: not fetched" in worked("hoard", M, "--check")
    assert daemon.asked == [("hoard", {"check": True, "path": ""})]
    assert data("hoard")[0]["missing"] == missing


# journal

RECORD = {
    "seq": 4,
    "kind": "rename",
    "state": "parked",
    "path": HOSTILE,
    "to_path": "b",
    "node": 9,
    "at_ns": time.time_ns(),
    "reason": "refused: EACCES",
    "size": None,
}


def test_journal_list(daemon: Daemon) -> None:
    assert "empty" in worked("journal", "list")
    daemon.replies["journal_list"] = {"records": [RECORD]}
    assert f"{SAFE} -> b  (refused: EACCES)" in worked("journal", "list")
    assert data("journal", "list") == {"records": [{"mountpoint": M, **RECORD}]}


def test_journal_show_and_drop(daemon: Daemon) -> None:
    daemon.replies["journal_show"] = {**RECORD, "detail": {"parent": 3}}
    assert "parent" in worked("journal", "show", "4")
    assert data("journal", "show", "4", "--mount", M)["detail"] == {"parent": 3}
    daemon.replies["journal_drop"] = {"seqs": [4, 7], "paths": [HOSTILE]}
    assert f"{M}/{SAFE}\nwith it: 7\n" in worked("journal", "drop", "4", "--dry-run")
    assert daemon.asked[-1] == ("journal_drop", {"seq": 4, "dry_run": True})
    assert "dropped, with 1 other" in worked("journal", "drop", "4", "--with-others")
    assert daemon.asked[-1] == ("journal_drop", {"seq": 4, "others": True})
    worked("journal", "drop", "4", "--yes")
    assert daemon.asked[-1] == ("journal_drop", {"seq": 4, "others": False})


def test_journal_export(daemon: Daemon, tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    facts = {"volume": {"url": URL}, "host": "here", "made_ns": 1}
    daemon.replies["journal_export"] = facts
    assert "0 records" in worked("journal", "export", "out.tar.gz")
    assert os.listdir(tmp_path / ".") and (tmp_path / "out.tar.gz").stat().st_mode & 0o77 == 0
    assert "exists" in failed("journal", "export", "out.tar.gz")
    assert "call it" in failed("journal", "export", "out.zip")
    assert "inside an awayfs mount" in failed("journal", "export", M + "/out.tar")
    left = [name for name in os.listdir(tmp_path) if name.startswith((".awayfs", "out.zip"))]
    assert left == []


# conflicts


NOW = time.time_ns()


def conflict(path: str = HOSTILE) -> dict[str, Any]:
    side = {"size": 5, "mtime_ns": 1, "mode": 0o644, "available": True, "path": ".awayfs/x"}
    return {
        "id": 1,
        "path": path,
        "kind": "update/update",
        "detected_ns": NOW,
        "base": None,
        "local": side,
        "server": {**side, "available": False},
        "note": "",
    }


def test_conflicts(daemon: Daemon) -> None:
    assert "no conflicts" in worked("conflicts")
    daemon.replies["conflicts"] = {"conflicts": [conflict()]}
    text = worked("conflicts", M + "/d")
    for part in (SAFE, "update/update", "does not exist", "content not here", f"{M}/.awayfs/x"):
        assert part in text
    assert daemon.asked[-1] == ("conflicts", {"path": "d"})
    assert data("conflicts") == {"conflicts": [{"mountpoint": M, **conflict()}]}


def test_ten_thousand_conflicts(daemon: Daemon) -> None:
    daemon.replies["conflicts"] = {"conflicts": [conflict(f"d/{n}") for n in range(10_000)]}
    assert len(data("conflicts")["conflicts"]) == 10_000
    assert worked("conflicts").count("update/update") == 10_000


def test_resolve(daemon: Daemon, tmp_path: Any) -> None:
    daemon.replies["resolve"] = {"path": "f", "kept": "both", "copy": "f (conflict)"}
    assert "f (conflict)" in worked("resolve", M + "/f", "--keep", "both")
    assert daemon.asked == [("resolve", {"paths": ["f"], "keep": "both"})]
    assert data("resolve", M + "/f", "--keep", "both")["kept"] == "both"
    merged = tmp_path / "merged"
    assert "not a file" in failed("resolve", M + "/f", "--with", str(merged))
    merged.write_text("both sides")
    worked("resolve", M + "/f", "--with", str(merged))
    assert daemon.asked[-1] == ("resolve", {"paths": ["f"], "with": str(merged)})
    assert "is a directory" in failed("resolve", M + "/f", "--with", str(tmp_path))


def test_a_file_inside_a_mount_is_copied_for_the_daemon(
    daemon: Daemon, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = tmp_path / "other"
    inside.mkdir()
    (inside / "merged").write_text("merged")
    table = [entry(), entry(os.fsencode(inside), "0:98")]
    monkeypatch.setattr(mountinfo, "read", lambda: table)
    worked("resolve", M + "/f", "--with", str(inside / "merged"))
    assert daemon.read == b"merged"
    copy = daemon.asked[-1][1]["with"]
    assert not copy.startswith(str(inside)) and not os.path.exists(copy)


def test_why(daemon: Daemon) -> None:
    assert "nothing has failed" in worked("why", M + "/f")
    reply = {"path": "f", "error": "EDISCONDATA", "text": HOSTILE, "help": ["awayfs online"]}
    daemon.replies["why"] = reply
    text = worked("why", M + "/f")
    assert SAFE in text and "EDISCONDATA" in text and "- awayfs online" in text


CHANGE = {
    "letters": "RP",
    "path": HOSTILE,
    "from_path": "f",
    "kind": "file",
    "base_kind": "file",
    "attributes": {"mode": [0o644, 0o600], "mtime_ns": [0, 0]},
    "xattrs": {"user.k": "set"},
}


def test_diff(daemon: Daemon) -> None:
    assert "nothing differs" in worked("diff")
    daemon.replies["diff"] = {"changes": [CHANGE]}
    text = worked("diff", M)
    assert f'RP  {M}/f -> "{M}/{SAFE}"  (mode 0644 -> 0600, ' in text and "user.k set" in text
    (change,) = data("diff")["changes"]
    assert change["changes"] == ["renamed", "properties"] and change["mountpoint"] == M


def test_discard(daemon: Daemon) -> None:
    daemon.replies["discard"] = {"records": 2, "paths": 1, "pending": 3, "changes": [CHANGE]}
    assert "2 records discarded, 3 records left" in worked("discard", M + "/f", M + "/g")
    assert daemon.asked == [("discard", {"paths": ["f", "g"]})]
    assert SAFE in worked("discard", M + "/f", "--dry-run")
    assert daemon.asked[-1] == ("discard", {"paths": ["f"], "dry_run": True})
    worked("discard", M, "--all")
    assert daemon.asked[-1] == ("discard", {"all": True})
    assert "give --all" in failed("discard", M, status=2)
    assert "mount point alone" in failed("discard", M + "/f", "--all", status=2)


def test_cache_and_cull(daemon: Daemon) -> None:
    daemon.replies["cache"] = {"bytes": 2048, "pinned_bytes": 1024, "nodes": 5}
    assert "1.0 KiB" in worked("cache")
    assert data("cache", M)["nodes"] == 5
    assert worked("cull", M)


def test_a_daemons_message_stays_one_line(daemon: Daemon) -> None:
    daemon.error = ControlError(f"{HOSTILE}: no\r\nno", "failed")
    assert "\x1b" not in failed("why", M)


BAR = """
import fcntl, struct, termios
fcntl.ioctl(2, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
from awayfs.cli.progress import Bar
with Bar("pin") as bar:
    for done in range(1000):
        bar({"done": done, "total": 1000, "bytes": 2048, "path": "x\\x1b[31m"})
"""


def test_the_bar_on_a_terminal() -> None:
    master, slave = os.openpty()
    try:
        subprocess.run([sys.executable, "-c", BAR], stderr=slave, timeout=20, check=True)
        drawn = os.read(master, 1 << 16)
    finally:
        os.close(master)
        os.close(slave)
    assert b"2.0 KiB x\\x1b[31m" in drawn and b"\x1b[31m" not in drawn
    assert drawn.count(b"\r") < 50


# volumes


def test_volumes_and_forget() -> None:
    assert "no volumes" in worked("volumes")
    assert data("volumes") == []
    volumes.note_mounted("sftp-nas-1", URL)
    volumes.note_unmounted("sftp-nas-1", URL, 3)
    assert data("volumes")[0]["pending"] == 3
    assert URL in worked("volumes")
    assert "3 changes would be lost" in failed("forget", "sftp-nas-1")
    assert "no such volume" in failed("forget", "other")
    assert "forgotten" in worked("forget", URL, "--lose-changes")
    assert data("volumes") == []
    assert os.listdir(paths.volumes_dir()) == []


def test_forget_refuses_what_is_not_known() -> None:
    volumes.note_mounted("v", URL)
    assert "may be lost" in failed("forget", "v")
    volumes.note_unmounted("v", URL, 0)
    assert "forgotten" in worked("forget", "v", "--yes")


def test_nothing_is_forgotten_that_a_daemon_took_up_while_somebody_was_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    volumes.note_mounted("v", URL)
    volumes.note_unmounted("v", URL, 0)
    begun: list[Store] = []

    def mounted_meanwhile(_question: str, _yes: bool) -> bool:
        volumes.note_mounted("v", URL)
        begun.append(Store.open(paths.volume_dir("v"), create=True))
        return True

    monkeypatch.setattr(cli_volumes, "sure", mounted_meanwhile)
    assert "is in use by process" in failed("forget", "v")
    assert "is in use by process" in failed("forget", "v", "--lose-changes")
    begun[0].close()
    monkeypatch.setattr(
        cli_volumes, "sure", lambda _question, _yes: volumes.note_unmounted("v", URL, 2) is None
    )
    volumes.note_unmounted("v", URL, 0)  # mounted, and unmounted again with something unsent
    assert "2 changes would be lost" in failed("forget", "v")
    assert os.path.exists(os.path.join(paths.volume_dir("v"), "volume.db"))


def test_what_a_salvage_put_aside_is_not_forgotten_unasked() -> None:
    volumes.note_mounted("v", URL)
    Store.open(paths.volume_dir("v"), create=True).close()
    volumes.note_unmounted("v", URL, 0)
    lost = os.path.join(paths.volume_dir("v"), "lost+found", "17")
    os.mkdir(os.path.dirname(lost))
    with open(lost, "w") as file:
        file.write("unsent")
    assert "1 file in its lost+found would be lost" in failed("forget", "v", "--yes")
    assert os.path.exists(lost)
    assert "forgotten" in worked("forget", "v", "--yes", "--lose-changes")


def test_forget_and_fsck_refuse_while_mounted(daemon: Daemon) -> None:
    volumes.note_mounted("v", URL)
    assert "is mounted" in failed("forget", "v", "--lose-changes")
    assert "is mounted" in failed("fsck", "v")


# mount and umount


def test_mount_points_that_are_not_fit(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/x").write_text("")
    for place, said in (("file", "not a directory"), ("full", "not empty"), ("none", "mkdir -p")):
        assert said in failed("mount", "dir:/x", str(tmp_path / place))
    monkeypatch.setattr(mountinfo, "read", lambda: [entry()])
    monkeypatch.setattr(mounts, "is_dead", lambda _place: True)
    assert "dead mount" in failed("mount", "dir:/x", M)
    assert "inside another" in failed("mount", "dir:/x", M + "/sub")


def test_mounting_twice(daemon: Daemon, tmp_path: Any) -> None:
    assert "already mounted" in failed("mount", "dir:/x", M)
    (tmp_path / "m").mkdir()
    mount = ("mount", URL, str(tmp_path / "m"), "-o", "volume-id=v")
    assert f"already mounted on {M}" in failed(*mount)


FAKE = """
import json, os, sys, time
request = json.loads(sys.stdin.readline())
{body}
"""


@pytest.fixture
def fake_daemon(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], str]:
    """Have ``mount`` start a script in the daemon's place."""

    def use(body: str) -> str:
        from awayfs.cli import spawn

        script = tmp_path / "fake.py"
        script.write_text(FAKE.format(body=body))
        monkeypatch.setattr(spawn, "COMMAND", (str(script),))
        monkeypatch.setattr(spawn.in_background, "__defaults__", (2.0,))
        (tmp_path / "m").mkdir(exist_ok=True)
        return str(tmp_path / "m")

    return use


def test_mount_starts_a_daemon_and_waits(fake_daemon: Callable[[str], str], tmp_path: Any) -> None:
    place = fake_daemon(
        f"json.dump([request, os.getsid(0) == os.getpid()], open({str(tmp_path / 'got')!r}, 'w'))\n"
        'os.write(request[\'ready_fd\'], b\'{"ready": true, "mode": "connected"}\\n\')'
    )
    assert "connected" in worked("mount", "dir:/x/", place, "-o", "ro", "-o", "fresh=7")
    request, leads = json.loads((tmp_path / "got").read_text())
    assert leads
    assert (request["url"], request["mountpoint"]) == ("dir:/x", place)
    assert request["options"]["ro"] is True and request["options"]["settings"]["fresh"] == 7
    assert data("mount", "dir:/x", place)["mode"] == "connected"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("os.write(request['ready_fd'], b'{\"error\": \"no such host\"}\\n')", "no such host"),
        ("print('last words', file=sys.stderr); sys.exit(3)", "died: last words"),
        ("sys.exit(3)", "said nothing"),
        ("os.write(request['ready_fd'], b'what\\n')", "not understood"),
        ("time.sleep(60)", "not ready after"),
    ],
)
def test_a_daemon_that_does_not_start(
    fake_daemon: Callable[[str], str], body: str, said: str
) -> None:
    assert said in failed("mount", "dir:/x", fake_daemon(body))


def test_the_mount_helper(fake_daemon: Callable[[str], str]) -> None:
    place = fake_daemon("os.write(request['ready_fd'], b'{\"ready\": true}\\n')")
    options = "rw,_netdev,nofail,user,noexec,nosuid,nodev,x-systemd.automount,allow_other"
    for args in (["-o", options], ["-s", "-n", "-v", "-t", "awayfs"], ["-f"]):
        result = CliRunner().invoke(mount_helper, ["dir:/x", place, *args])
        assert result.exit_code == 0, result.stderr
    result = CliRunner().invoke(mount_helper, ["dir:/x", place, "-o", "bogus"])
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


def test_umount(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.replies["unmount"] = {"pending": 3}
    table = [entry()]
    asked = ("unmount", {"lazy": False})

    def read() -> list[MountEntry]:
        if asked in daemon.asked:
            mounts.withdraw("v")
        return [] if asked in daemon.asked else table

    monkeypatch.setattr(mountinfo, "read", read)
    assert "3 changes are kept and will be sent at the next mount" in worked("umount", M)


def test_umount_of_what_is_no_mount(daemon: Daemon) -> None:
    assert "no awayfs mount is there" in failed("umount", "/etc")
    assert f"awayfs umount {M}" in failed("umount", M + "/sub")


def test_umount_of_a_busy_mount(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    daemon.error = ControlError("a file is open", "busy")
    assert "a file is open" in failed("umount", M)


# the machine


def test_doctor() -> None:
    result = run("doctor", "--json")
    report = json.loads(result.stdout)
    assert {check["level"] for check in report["checks"]} <= {"ok", "warn", "fail"}
    assert result.exit_code == (0 if report["ok"] else 1)
    assert "sqlite" in run("doctor").stdout


def test_doctor_refuses_a_credentials_file_that_others_can_read(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    (tmp_path / "awayfs").mkdir()
    path = tmp_path / "awayfs/credentials.toml"
    path.write_text('["nas"]\npassword = "geheim"\n')
    for mode, level in ((0o644, "fail"), (0o600, "ok")):
        path.chmod(mode)
        checks = json.loads(run("doctor", "--json").stdout)["checks"]
        (check,) = (check for check in checks if check["name"] == "credentials")
        assert check["level"] == level and "geheim" not in check["text"]


def test_doctor_fails_where_the_state_is_open_to_others() -> None:
    os.chmod(paths.ensure_state(), 0o755)
    result = run("doctor")
    assert result.exit_code == 1
    assert "chmod 700" in result.stdout


# how things look


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        ("plain ö 名", "plain ö 名"),
        (HOSTILE, SAFE),
        (b"\xff\xc3\xb6", r"\xffö"),
        ("\x9b\x7f\u2066\U000e0001", r"\x9b\x7f\u2066\U000e0001"),
        (None, "-"),
    ],
)
def test_printable(text: str | bytes | None, safe: str) -> None:
    assert show.printable(text) == safe


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "just now"),
        (5, "5 s ago"),
        (300, "5 min ago"),
        (7200, "2 h ago"),
        (864000, "10 days ago"),
        (-100, "in the future"),
    ],
)
def test_ago(seconds: int, text: str) -> None:
    now = 2_000_000_000 * 10**9
    assert show.ago(now - seconds * 10**9, now) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "1 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (75, "1 min 15 s"),
        (1234, "20 min"),
        (7260, "2 h 1 min"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert show.duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 40, "5.0 TiB")],
)
def test_size(count: int | None, text: str) -> None:
    assert show.size(count) == text


# as a process of its own

ALONE = "from awayfs.control import mountinfo; mountinfo.read = list"
"""The mounts of the machine that the tests run on are not theirs."""
AWAYFS = [sys.executable, "-c", f"{ALONE}; from awayfs.cli.main import main; main()"]


def test_status_as_a_process(tmp_path: Any) -> None:
    done = subprocess.run([*AWAYFS, "status", "--json"], capture_output=True, timeout=20)
    assert (done.returncode, json.loads(done.stdout), done.stderr) == (0, [], b"")


def test_status_imports_nothing_slow() -> None:
    code = (
        "import sys\n"
        "from awayfs.cli import status, ask, progress\n"
        "slow = ('asyncio', 'asyncssh', 'tqdm', 'msgspec', 'sqlite3')\n"
        "print([name for name in slow if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=20)
    assert done.stdout.strip() == "[]"


def test_a_reader_that_goes_away_is_no_trouble() -> None:
    done = subprocess.run(
        ["sh", "-c", '"$@" --help | true', "sh", *AWAYFS], capture_output=True, timeout=20
    )
    assert b"Traceback" not in done.stderr


def test_an_interrupted_watch_ends_well() -> None:
    child = subprocess.Popen(
        [*AWAYFS, "status", "--watch", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert child.stdout is not None and child.stdout.readline() == b"[]\n"
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=20)
    assert (child.returncode, errors) == (0, b"")


def test_demo_passes_its_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[list[str]] = []
    monkeypatch.setattr(subprocess, "call", lambda command: seen.append(command) or 0)
    worked("demo", "--fast", "x")
    assert seen[0][-4:] == ["-m", "awayfs.daemon.demo", "--fast", "x"]
