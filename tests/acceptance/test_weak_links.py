"""Weak links: reads go first, what lives shortly never travels, what was sent stays sent."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.harness import Client, eventually, mounted, needs_fuse, run
from tests.sshd import needs_sshd
from tests.thin_link import behind_thin_link

pytestmark = [*needs_fuse, *needs_sshd]

KIB = 1 << 10
MIB = 1 << 20
PATIENCE_S = 90.0
ALWAYS_WEAK = "weak-latency=0.000001"
"""No round trip is shorter."""


def written(path: str, content: bytes) -> None:
    with open(path, "wb") as file:
        file.write(content)


def digest(path: str) -> str:
    return run("sha256sum", path).split()[0]


def weak(client: Client) -> None:
    eventually(lambda: client.status()["mode"] == "write-behind", "a weak link", PATIENCE_S)


@contextmanager
def names_seen(root: str) -> Iterator[set[str]]:
    """Every name that stands on the server at a look, some times in a hundredth of a second."""
    seen: set[str] = set()
    over = threading.Event()

    def look() -> None:
        while not over.is_set():
            seen.update(os.listdir(root))
            time.sleep(0.002)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def test_what_lives_shortly_never_travels(tmp_path: object) -> None:
    content = os.urandom(100 * KIB)
    with behind_thin_link(str(tmp_path)) as (client, link):
        client.mount(f"{ALWAYS_WEAK},ageing=5")
        weak(client)
        assert "round trip" in client.awayfs("status", client.mountpoint)
        with names_seen(client.server.root) as seen:
            before = link.up
            for number in range(20):
                written(client.path(f"short{number}"), content)
            written(client.path("kept"), content)
            status = client.status()
            assert status["pending"]["resting"] == status["pending"]["records"] > 0
            assert 0 < status["pending"]["resting_s"] <= 5
            assert "resting" in client.awayfs("status", client.mountpoint)
            assert "rest for a while" in client.awayfs("why", client.path("kept"))
            for number in range(20):
                os.unlink(client.path(f"short{number}"))
            eventually(lambda: "kept" in os.listdir(client.server.root), "sent", PATIENCE_S)
            eventually(lambda: not client.status()["pending"]["records"], "all sent", PATIENCE_S)
        assert not any(name.startswith("short") for name in seen)
        assert link.up - before < 3 * len(content)
        assert digest(f"{client.server.root}/kept") == hashlib.sha256(content).hexdigest()


def test_sync_waits_for_nothing_to_age(tmp_path: object) -> None:
    with behind_thin_link(str(tmp_path)) as (client, _link):
        client.mount(f"{ALWAYS_WEAK},ageing=3600")
        weak(client)
        written(client.path("f"), b"content")
        assert os.listdir(client.server.root) == []
        client.awayfs("sync", client.mountpoint, "--wait")
        assert os.listdir(client.server.root) == ["f"]


@pytest.mark.slow
def test_reads_go_before_a_large_upload_and_a_hoard_walk(tmp_path: object) -> None:
    size, small = 6 * MIB, 20 * KIB
    with behind_thin_link(str(tmp_path)) as (client, link):
        os.mkdir(f"{client.server.root}/hoarded")
        for number in range(4):
            written(f"{client.server.root}/hoarded/{number}", os.urandom(size))
        for number in range(5):
            written(f"{client.server.root}/read{number}", os.urandom(small))
        client.mount("weak-rate=none,learn=off")
        os.listdir(client.mountpoint)
        link.rate = 300 * KIB
        for number in range(4):
            written(client.path(f"upload{number}"), os.urandom(size))
        hoard = subprocess.Popen(
            [*client.command, "hoard", client.path("hoarded")],
            env=client.env,
            stdout=subprocess.DEVNULL,
        )
        try:
            up, down = link.up, link.down
            eventually(
                lambda: link.up - up > 300 * KIB and link.down - down > 300 * KIB,
                "both under way",
                PATIENCE_S,
            )
            took = []
            for number in range(5):
                began = time.monotonic()
                assert digest(client.path(f"read{number}")) == digest(
                    f"{client.server.root}/read{number}"
                )
                took.append(time.monotonic() - began)
            print("reads took", ", ".join(f"{one:.2f} s" for one in took))
            assert hoard.poll() is None, "the walk was over before"
            assert not any(n.startswith("upload") for n in os.listdir(client.server.root))
        finally:
            hoard.kill()
            hoard.wait()
            link.rate = None
        client.awayfs("sync", client.mountpoint, "--wait", timeout=PATIENCE_S)


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["link cut", "daemon killed"])
def test_a_large_upload_goes_on_where_it_was_cut_off(tmp_path: object, killed: bool) -> None:
    size = 16 * MIB
    with behind_thin_link(str(tmp_path)) as (client, link):
        client.mount(f"{ALWAYS_WEAK},ageing=0")
        weak(client)
        before = link.up
        link.rate = 2 * MIB
        written(client.path("large"), os.urandom(size))
        eventually(lambda: link.up - before > 10 * MIB, "half of it", PATIENCE_S)
        if killed:
            client.kill()
            client.clear()
            client.mount(f"{ALWAYS_WEAK},ageing=0")
        else:
            link.cut()
        link.rate = None
        eventually(lambda: "large" in os.listdir(client.server.root), "sent", PATIENCE_S)
        sent = link.up - before
        print(f"{sent / MIB:.1f} MiB were sent of {size / MIB:.0f}")
        assert sent < size + 8 * MIB, "began anew"
        assert digest(f"{client.server.root}/large") == digest(client.path("large"))
        assert sorted(os.listdir(client.server.root)) == ["large"]


def test_the_limits_hold_and_follow_the_settings(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path), "rate-up=100K,rate-down=100K") as client:
        written(f"{client.server.root}/down", os.urandom(300 * KIB))
        began = time.monotonic()
        assert digest(client.path("down")) == digest(f"{client.server.root}/down")
        assert time.monotonic() - began > 1.0
        began = time.monotonic()
        written(client.path("up"), os.urandom(300 * KIB))
        client.sync()
        assert time.monotonic() - began > 1.5
        shown = client.awayfs("config", client.mountpoint)
        assert "rate-up" in shown
        assert "102400" in shown


@pytest.mark.parametrize(
    "option", ["rate-up=fast", "rate-down=0", "rate-up=5Mbit", "weak-rate=12", "ageing=-1"]
)
def test_what_is_no_limit_is_said(tmp_path: object, option: str) -> None:
    os.makedirs(f"{tmp_path}/share")
    client = Client(str(tmp_path), None)  # type: ignore[arg-type]
    said = client.fails("mount", f"dir:{tmp_path}/share", client.mountpoint, "-o", option, code=2)
    assert option in said
    assert "not understood; give" in said
    assert len(said.strip().splitlines()) == 1
