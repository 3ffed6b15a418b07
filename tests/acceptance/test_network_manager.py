"""What NetworkManager tells, on a private system bus: a metered network, a captive portal."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterator

import pytest

from tests.fake_bus import NetworkManager, bus_at, needs_bus
from tests.harness import Client, eventually, mounted, needs_fuse
from tests.programs import attempt
from tests.sshd import needs_sshd
from tests.thin_link import behind_thin_link

pytestmark = [*needs_fuse, *needs_sshd, needs_bus]

KIB = 1 << 10
MIB = 1 << 20
PATIENCE_S = 90.0
YES, NO, GUESS_YES = 1, 2, 3
PORTAL, FULL = 2, 4
"""NM_METERED_... and NM_CONNECTIVITY_..."""


@pytest.fixture
def manager(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[NetworkManager]:
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/bus")
    with bus_at(f"{tmp_path}/bus"):
        manager = NetworkManager(Metered=YES, Connectivity=FULL)
        try:
            yield manager
        finally:
            manager.close()


def written(path: str, size: int) -> None:
    with open(path, "wb") as file:
        file.write(os.urandom(size))


def mode_is(client: Client, mode: str) -> None:
    eventually(lambda: client.status()["mode"] == mode, f"mode {mode}", PATIENCE_S)


def complete(client: Client) -> bool:
    """Whether all that is pinned is here."""
    return all(pin["complete"] for pin in client.ask("pins")["pins"])


def test_a_metered_network_is_spared(manager: NetworkManager, tmp_path: object) -> None:
    """Nothing is fetched unasked, what lives shortly never travels, and people are told."""
    with behind_thin_link(str(tmp_path)) as (client, link):
        root = client.server.root
        os.mkdir(f"{root}/pinned")
        written(f"{root}/pinned/f", 300 * KIB)
        client.mount("ageing=4,learn=off")
        mode_is(client, "write-behind")
        assert client.status()["cause"] == "the network is metered"
        assert "weak: the network is metered" in client.awayfs("status", client.mountpoint)
        client.awayfs("pin", "--no-walk", client.path("pinned"))
        up, down = link.up, link.down
        written(client.path("short"), 300 * KIB)
        written(client.path("kept"), 100 * KIB)
        began = time.monotonic()
        told = client.awayfs("why", client.path("kept"))
        assert "rest for a while" in told and "the network is metered" in told
        os.unlink(client.path("short"))
        eventually(lambda: "kept" in os.listdir(root), "sent", PATIENCE_S)
        assert time.monotonic() - began > 2.5, "it did not rest"
        assert link.up - up < 250 * KIB, "what is gone has travelled"
        assert link.down - down < 100 * KIB and not complete(client), "fetched ahead"
        manager.says(Metered=NO)
        mode_is(client, "connected")
        eventually(lambda: complete(client), "the walk that was due", PATIENCE_S)
        story = [(one["mode"], one["cause"]) for one in client.status()["history"]]
        assert ("write-behind", "the network is metered") in story
        assert story[-1][0] == "connected" and client.conflicts() == []
        manager.says(Metered=GUESS_YES)
        mode_is(client, "write-behind")


def test_reads_go_before_uploads_over_a_metered_network(
    manager: NetworkManager, tmp_path: object
) -> None:
    with behind_thin_link(str(tmp_path)) as (client, link):
        for number in range(3):
            written(f"{client.server.root}/read{number}", 20 * KIB)
        client.mount("ageing=0,weak-rate=none,learn=off")
        mode_is(client, "write-behind")
        os.listdir(client.mountpoint)
        link.rate, up = 300 * KIB, link.up
        written(client.path("upload"), 6 * MIB)
        eventually(lambda: link.up - up > 300 * KIB, "the upload is under way", PATIENCE_S)
        took = [attempt("read", client.path(f"read{number}")) for number in range(3)]
        assert [one.code for one in took] == [0, 0, 0]
        assert max(one.seconds for one in took) < 5.0, "a read waited behind the upload"
        assert not arrived(client), "too small to tell"
        link.rate = None
        eventually(lambda: arrived(client), "sent", PATIENCE_S)


def arrived(client: Client) -> bool:
    upload = client.on_server("upload")
    return upload.exists() and upload.stat().st_size == 6 * MIB


@contextlib.contextmanager
def silent(client: Client) -> Iterator[None]:
    """The server's sessions stand still: whoever asks gets no answer, and no end."""
    frozen = client.server.sshd.freeze()  # type: ignore[union-attr]
    try:
        yield
    finally:
        for pid in frozen:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def test_a_captive_portal_is_a_reason_to_ask(manager: NetworkManager, tmp_path: object) -> None:
    """NetworkManager is not believed: a server that answers stays connected, one that does not
    is given up with both facts as the cause, and tried at once when the network is there."""
    manager.says(Metered=NO)
    with mounted("sftp", str(tmp_path)) as client:
        written(client.path("here"), 10)
        client.sync()
        manager.says(Connectivity=PORTAL)
        eventually(lambda: "sees a captive portal" in client.log, "the word of it")
        time.sleep(3.5)
        assert client.status()["mode"] == "connected"
        before = client.log.count("in doubt")
        with silent(client):
            manager.says(Connectivity=FULL)
            manager.says(Connectivity=PORTAL)
            eventually(lambda: client.log.count("in doubt") > before, "the doubt")
            mode_is(client, "disconnected")
            assert attempt("read", client.path("here")).code == 0
        told = [one["cause"] for one in client.status()["history"]]
        assert any("captive portal" in cause or "lost" in cause for cause in told), told
        manager.says(Connectivity=FULL)
        mode_is(client, "connected")
        assert client.conflicts() == []


def test_the_network_is_back(manager: NetworkManager, tmp_path: object) -> None:
    """The server is tried at once, however long the pause has become meanwhile."""
    with mounted("sftp", str(tmp_path)) as client:
        client.server.cut()
        mode_is(client, "disconnected")
        eventually(lambda: client.log.count("still offline") >= 4, "a longer pause", PATIENCE_S)
        client.server.restore()
        began = time.monotonic()
        manager.says(Connectivity=PORTAL)
        manager.says(Connectivity=FULL)
        eventually(lambda: client.status()["mode"] != "disconnected", "it is tried", PATIENCE_S)
        print(f"back after {time.monotonic() - began:.1f} s")
        assert "trying now: NetworkManager sees the network" in client.log
