"""A person at the desktop is asked once: by the program that ssh uses, or by a notice.

The program is a real one, named by SSH_ASKPASS; the notices go to a fake on a private bus.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fake_bus import Desktop, bus_at, needs_bus
from tests.guarded import RIGHT, WRONG, Guarded, guarded_share, mode_is, needs_guard
from tests.harness import alive, eventually

pytestmark = needs_guard

QUIET_S = 8.0
"""Longer than it takes until somebody is asked."""
NEW = WRONG
"""What the password has been changed to."""

ASKPASS = """#!/bin/sh
here={0}
printf '%s\\n' "$#:$1" >> $here/questions
echo $$ > $here/pid
sleep $(cat $here/sleep)
[ -s $here/answer ] || exit 1
cat $here/answer
"""


class Askpass:
    """The program, and what it is to do."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir()
        self._directory = directory
        self.path = str(directory / "askpass")
        Path(self.path).write_text(ASKPASS.format(directory))
        os.chmod(self.path, stat.S_IRWXU)
        self.environment = {
            "SSH_ASKPASS": self.path,
            "SSH_ASKPASS_REQUIRE": "",
            "DISPLAY": ":nowhere",
        }
        self.will()

    def will(self, answer: str = "", after: str = "0") -> None:
        """What it says from now on (nothing: as a person who cancels), and when."""
        (self._directory / "answer").write_text(answer)
        (self._directory / "sleep").write_text(after)

    def questions(self) -> list[str]:
        """All that was asked, after the number of arguments."""
        file = self._directory / "questions"
        return file.read_text().splitlines() if file.exists() else []

    def is_shown(self) -> bool:
        """Whether it runs."""
        file = self._directory / "pid"
        return file.exists() and alive(int(file.read_text() or 0))


@pytest.fixture
def askpass(tmp_path: Path) -> Askpass:
    return Askpass(tmp_path / "askpass")


@pytest.fixture
def guarded(tmp_path: Path, askpass: Askpass) -> Iterator[Guarded]:
    with guarded_share(str(tmp_path)) as guarded:
        guarded.client.environment |= askpass.environment
        yield guarded


def mounted_and_expired(guarded: Guarded) -> None:
    """The password in the credentials file is not the right one any more."""
    guarded.credentials(RIGHT)
    guarded.client.mount()
    assert Path(guarded.client.path("f")).read_text() == "of the server\n"
    guarded.sshd.set_password(NEW)
    guarded.sshd.restart()
    mode_is(guarded.client, "auth-required")
    Path(guarded.client.path("new")).write_text("made meanwhile\n")


def test_asked_and_answered(guarded: Guarded, askpass: Askpass) -> None:
    askpass.will(f"{NEW}\n", after="2")
    mounted_and_expired(guarded)
    eventually(askpass.is_shown, "the question")
    assert guarded.secrets_seen() == []
    mode_is(guarded.client, "connected")
    assert askpass.questions() == [f"1:Password for {guarded.url}: "]
    guarded.client.sync()
    assert Path(guarded.root, "new").read_text() == "made meanwhile\n"
    assert guarded.client.conflicts() == []
    assert guarded.secrets_seen() == []


def test_a_person_who_errs_is_asked_again_and_not_for_ever(
    guarded: Guarded, askpass: Askpass
) -> None:
    askpass.will("Not-This-One-3\n")
    mounted_and_expired(guarded)
    before = guarded.sshd.attempts()
    eventually(lambda: len(askpass.questions()) == 3, "three questions")
    assert "That was refused." in askpass.questions()[1]
    time.sleep(QUIET_S)
    assert len(askpass.questions()) == 3
    assert guarded.sshd.attempts() == before + 3
    assert guarded.client.status()["mode"] == "auth-required"


@pytest.mark.slow
def test_a_person_who_would_not_is_left_alone(guarded: Guarded, askpass: Askpass) -> None:
    """Until the volume was connected in between: then it is another time."""
    mounted_and_expired(guarded)
    eventually(lambda: len(askpass.questions()) == 1, "the question")
    time.sleep(QUIET_S)
    assert len(askpass.questions()) == 1
    guarded.login(NEW)
    mode_is(guarded.client, "connected")
    time.sleep(2)
    guarded.sshd.set_password("Third-Time-3")
    guarded.sshd.restart()
    mode_is(guarded.client, "auth-required")
    eventually(lambda: len(askpass.questions()) == 2, "the question")


def test_a_question_that_is_answered_elsewhere_goes_away(
    guarded: Guarded, askpass: Askpass
) -> None:
    askpass.will(after="1000")
    mounted_and_expired(guarded)
    eventually(askpass.is_shown, "the question")
    assert Path(guarded.client.path("f")).read_text() == "of the server\n"
    guarded.login(NEW)
    mode_is(guarded.client, "connected")
    eventually(lambda: not askpass.is_shown(), "the question's end")


def test_a_question_ends_with_the_mount(guarded: Guarded, askpass: Askpass) -> None:
    askpass.will(after="1000")
    mounted_and_expired(guarded)
    eventually(askpass.is_shown, "the question")
    guarded.client.umount()
    eventually(lambda: not askpass.is_shown(), "the question's end")


def test_whoever_is_at_a_terminal_is_asked_there(guarded: Guarded, askpass: Askpass) -> None:
    mounted_and_expired(guarded)
    guarded.client.umount()
    asked = len(askpass.questions())
    assert "Password for" in guarded.mounted_again("Not-This-One-3")
    mode_is(guarded.client, "auth-required")
    time.sleep(QUIET_S)
    assert len(askpass.questions()) == asked


def test_a_first_mount_without_a_terminal(guarded: Guarded, askpass: Askpass) -> None:
    askpass.will(f"{RIGHT}\n")
    subprocess.run(
        [sys.executable, "-m", "awayfs", *guarded.mount_words()],
        stdin=subprocess.DEVNULL,
        env=guarded.client.env,
        check=True,
        timeout=60,
    )
    mode_is(guarded.client, "connected")
    assert askpass.questions() == [f"1:Password for {guarded.url}: "]


@needs_bus
def test_without_such_a_program_a_notice_says_what_to_do(guarded: Guarded, tmp_path: Path) -> None:
    with bus_at(f"{tmp_path}/session"):
        address = f"unix:path={tmp_path}/session"
        desktop = Desktop(address)
        guarded.client.environment |= {
            "SSH_ASKPASS": "/nowhere/askpass",
            "DBUS_SESSION_BUS_ADDRESS": address,
        }
        mounted_and_expired(guarded)
        eventually(lambda: desktop.notices, "the notice")
        time.sleep(QUIET_S)
        mountpoint = guarded.client.mountpoint
        body = f"{guarded.url}: run 'awayfs login {mountpoint}'"
        assert desktop.notices == [("A share needs a password", body)]
        desktop.close()
