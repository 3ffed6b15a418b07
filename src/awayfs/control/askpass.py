"""The program that asks a person for a secret at the desktop: the one that ssh uses (ssh(1)).

``SSH_ASKPASS`` names it, ``ssh-askpass`` on the path where it does not, and there must be a
screen; ``SSH_ASKPASS_REQUIRE=never`` wants none, ``force`` needs no screen. So it comes from the
user's own environment and never from a share. What it says on its standard output is the secret;
its only argument is the question, which has none.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping

from awayfs.control.messages import one_line

USUAL = "ssh-askpass"
LONGEST = 4096


def program(environment: Mapping[str, str]) -> str:
    """Its path; empty where nobody can be asked like that."""
    required = environment.get("SSH_ASKPASS_REQUIRE", "")
    screen = environment.get("DISPLAY") or environment.get("WAYLAND_DISPLAY")
    if required == "never" or not (screen or required == "force"):
        return ""
    named = environment.get("SSH_ASKPASS") or USUAL
    return shutil.which(named, path=environment.get("PATH")) or ""


def question(kind: str, of: str, before: str = "") -> str:
    """What a person reads. ``kind``: password or passphrase; ``before``: what came of the last."""
    what = "Passphrase of the key for" if kind == "passphrase" else "Password for"
    return one_line(f"{before}{what} {of}:") + " "


def ask(path: str, prompt: str) -> str:
    """Run it and wait for what is typed; empty when the person would not."""
    try:
        done = subprocess.run(
            [path, prompt], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=False
        )
    except OSError:
        return ""
    return typed(done.stdout, done.returncode)


def typed(output: bytes, status: int | None) -> str:
    """The secret in what it said; empty for none, and for what is no line of text."""
    line = output.split(b"\n", 1)[0].removesuffix(b"\r")
    if status != 0 or len(line) > LONGEST:
        return ""
    try:
        return line.decode()
    except UnicodeDecodeError:
        return ""
