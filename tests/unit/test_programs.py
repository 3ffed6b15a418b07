"""Programs of rules: bounded in time, size and life, and never a shell's business."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from awayfs.core.merge_rules import Rule, Strategy
from awayfs.volume.merge_process import main
from awayfs.volume.merging import _filled
from awayfs.volume.programs import Ended, run


def ran(tmp_path: Path, script: str, limit_s: float = 30.0, largest: int = 1 << 20) -> Ended:
    environment = {"PATH": os.environ["PATH"]}
    return asyncio.run(run(["sh", "-c", script], str(tmp_path), environment, limit_s, largest))


def alive(group: int) -> list[int]:
    """Processes of a group that are not dead; orphans may stay dead for a while."""
    found: list[int] = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{name}/stat").read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] not in "ZX":
            found.append(int(name))
    return found


def test_how_it_ended(tmp_path: Path) -> None:
    assert ran(tmp_path, "echo a; echo last line >&2; exit 5") == Ended(5, "last line")


def test_what_it_says_is_harmless(tmp_path: Path) -> None:
    assert ran(tmp_path, r"printf 'x\033[2Jy'").said == "x?[2Jy"


def test_a_hanging_group_is_killed(tmp_path: Path) -> None:
    began = time.monotonic()
    ended = ran(tmp_path, "echo $$ > pid; trap '' TERM; sleep 60 & wait", limit_s=3.0)
    assert ended.status is None and time.monotonic() - began < 20
    assert alive(int((tmp_path / "pid").read_text())) == []


def test_what_it_left_running_is_killed(tmp_path: Path) -> None:
    assert ran(tmp_path, "echo $$ > pid; sleep 60 &").status == 0
    assert alive(int((tmp_path / "pid").read_text())) == []


ESCAPING = "setsid -f sh -c 'echo $$ > pid; trap \"\" TERM; sleep 60 & wait'"


def escaped(tmp_path: Path) -> int:
    """The session that a program made for what it left behind, which has begun."""
    assert (tmp_path / "pid").exists()
    return int((tmp_path / "pid").read_text())


@pytest.mark.parametrize(("after", "status"), [("exit 3", 3), ("sleep 60", None)])
def test_what_has_a_session_of_its_own_is_killed(
    after: str, status: int | None, tmp_path: Path
) -> None:
    script = f"{ESCAPING}; while ! test -s pid; do sleep 0.01; done; {after}"
    assert ran(tmp_path, script, limit_s=5.0).status == status
    assert alive(escaped(tmp_path)) == []


def test_what_a_killed_daemon_ran_is_killed(tmp_path: Path) -> None:
    text = (
        "import asyncio, sys; from awayfs.volume.programs import run;"
        "asyncio.run(run(['sh', '-c', sys.argv[1]], sys.argv[2], {'PATH': sys.argv[3]}, 60, 9))"
    )
    script = f"{ESCAPING}; sleep 60"
    arguments = [sys.executable, "-c", text, script, str(tmp_path), os.environ["PATH"]]
    with subprocess.Popen(arguments) as daemon:
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        daemon.kill()
    until = time.monotonic() + 20
    while alive(escaped(tmp_path)) and time.monotonic() < until:
        time.sleep(0.05)
    assert alive(escaped(tmp_path)) == []


def test_it_fills_no_disk(tmp_path: Path) -> None:
    ran(tmp_path, "sleep 0.3; head -c 1000000 /dev/zero > big", largest=100_000)
    assert (tmp_path / "big").stat().st_size <= 100_000


def test_one_that_cannot_be_started(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        asyncio.run(run(["/no/such"], str(tmp_path), {}, 1.0, 1000))


def test_a_cancelled_one_is_killed(tmp_path: Path) -> None:
    async def cancelled() -> None:
        task = asyncio.create_task(
            run(["sh", "-c", "echo $$ > pid; sleep 60"], str(tmp_path), {}, 60.0, 1000)
        )
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert alive(int((tmp_path / "pid").read_text())) == []


PLACES = {"base": "/b", "local": "/l", "server": "/s", "merged": "/m"}


@pytest.mark.parametrize(
    ("command", "filled"),
    [
        (("x",), ["x", "/b", "/l", "/s", "/m"]),
        (("x", "-q"), ["x", "-q", "/b", "/l", "/s", "/m"]),
        (("x", "--out={merged}", "{local}"), ["x", "--out=/m", "/l"]),
        (("x", "{local} {base}:{merged}"), ["x", "/l /b:/m"]),
        (("x", "{path}"), ["x", "$(touch y); {local}"]),  # what is put in is not looked at again
    ],
)
def test_arguments(command: tuple[str, ...], filled: list[str]) -> None:
    rule = Rule("*", Strategy.COMMAND, "c", command=command)
    assert _filled(rule, PLACES, b"$(touch y); {local}") == filled


def test_merging_takes_no_more_than_some_memory(tmp_path: Path) -> None:
    texts = (b"\n" * (4 << 20), b"a\n" * (2 << 20), b"\n" * ((4 << 20) - 2) + b"b\n")
    for place, text in zip(PLACES, texts, strict=False):
        (tmp_path / place).write_bytes(text)
    module = [sys.executable, "-P", "-m", "awayfs.volume.merge_process", "text"]
    done = subprocess.run([*module, *PLACES], cwd=tmp_path, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"it has too many lines\n")


def test_no_path_is_an_option() -> None:
    rule = Rule("*", Strategy.COMMAND, "c", command=("x", "{path}"))
    assert _filled(rule, PLACES, b"--exec=sh/f") == ["x", "./--exec=sh/f"]


@pytest.mark.parametrize(
    ("strategy", "texts", "status", "merged"),
    [
        ("text", (b"1\n2\n3\n", b"one\n2\n3\n", b"1\n2\nthree\n"), 0, b"one\n2\nthree\n"),
        ("union", (b"", b"a\n", b"b\n"), 0, b"b\na\n"),
        ("text", (b"1\n", b"\0", b"2\n"), 2, None),
    ],
)
def test_the_merging_process(
    strategy: str, texts: tuple[bytes, ...], status: int, merged: bytes | None, tmp_path: Path
) -> None:
    places = [str(tmp_path / name) for name in PLACES]
    for place, text in zip(places, texts, strict=False):
        Path(place).write_bytes(text)
    assert main([strategy, *places]) == status
    assert (Path(places[3]).read_bytes() if Path(places[3]).exists() else None) == merged
