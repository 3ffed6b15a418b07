"""Merge tools, started as git starts them: BASE, LOCAL, REMOTE and MERGED in the environment.

What is run comes from here or from the user's own git configuration, never from a share or a
repository: ``git config --global`` is asked from ``/``.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from awayfs.cli.ask import Failed
from awayfs.core.merging import has_markers

GIT_WITHIN_S = 5.0
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")


@dataclass(frozen=True, slots=True)
class Tool:
    """How one is started. ``trusted``: its exit status says whether the merge was finished."""

    command: tuple[str, ...]
    trusted: bool


_VIM = ("-f", "-d", "-c", "4wincmd w | wincmd J", "$LOCAL", "$BASE", "$REMOTE", "$MERGED")
KNOWN: Mapping[str, Tool] = {
    "meld": Tool(("meld", "--output", "$MERGED", "$LOCAL", "$BASE", "$REMOTE"), False),
    "vimdiff": Tool(("vim", *_VIM), True),
    "gvimdiff": Tool(("gvim", *_VIM), True),
    "nvimdiff": Tool(("nvim", *_VIM), True),
    "nvim": Tool(("nvim", *_VIM), True),
    "kdiff3": Tool(
        ("kdiff3", "--auto", "-o", "$MERGED", "$BASE", "$LOCAL", "$REMOTE"),
        True,
    ),
    "opendiff": Tool(
        ("opendiff", "$LOCAL", "$REMOTE", "-ancestor", "$BASE", "-merge", "$MERGED"), False
    ),
    "code": Tool(("code", "--wait", "--merge", "$REMOTE", "$LOCAL", "$BASE", "$MERGED"), False),
    "vscode": Tool(("code", "--wait", "--merge", "$REMOTE", "$LOCAL", "$BASE", "$MERGED"), False),
    "codium": Tool(("codium", "--wait", "--merge", "$REMOTE", "$LOCAL", "$BASE", "$MERGED"), False),
    "smerge": Tool(("smerge", "mergetool", "$BASE", "$LOCAL", "$REMOTE", "-o", "$MERGED"), True),
    "diffmerge": Tool(
        ("diffmerge", "--merge", "--result=$MERGED", "$LOCAL", "$BASE", "$REMOTE"), True
    ),
    "emerge": Tool(
        ("emacs", "-f", "emerge-files-with-ancestor-command", "$LOCAL", "$REMOTE", "$BASE",
         "$MERGED"),
        True,
    ),
}  # fmt: skip


def find(name: str) -> Tool:
    """A tool by name: the user's own definition, or a known one that is installed."""
    if not NAME.fullmatch(name):
        raise Failed(f"{name}: not the name of a tool; known are {', '.join(KNOWN)}")
    command = _git(f"mergetool.{name}.cmd")
    if command is not None:
        trusted = _git(f"mergetool.{name}.trustExitCode", "--bool") == "true"
        return Tool(("sh", "-c", command), trusted)
    known = KNOWN.get(name)
    if known is None:
        raise Failed(
            f"{name}: not a tool known here; known are {', '.join(KNOWN)}, and what"
            " 'git config --global mergetool.NAME.cmd' names"
        )
    program = _git(f"mergetool.{name}.path") or known.command[0]
    if shutil.which(program) is None:
        raise Failed(f"{name}: {program} is not installed, or not in PATH")
    return Tool((program, *known.command[1:]), known.trusted)


def _git(key: str, *how: str) -> str | None:
    """A setting of the user's own git configuration."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("GIT_")}
    for name in ("GIT_CONFIG_GLOBAL",):
        if name in os.environ:
            environment[name] = os.environ[name]
    try:
        done = subprocess.run(
            ["git", "config", "--global", *how, "--get", key],
            cwd="/",
            env=environment,
            capture_output=True,
            text=True,
            timeout=GIT_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    value = done.stdout.rstrip("\n")
    return value if done.returncode == 0 and value else None


def run(tool: Tool, places: Mapping[str, str]) -> int:
    """Run a tool on the user's terminal; its exit status, negative for a signal.

    ``places`` has the paths of BASE, LOCAL, REMOTE and MERGED. Raises ``Failed``.
    """
    if tool.command[:2] == ("sh", "-c"):
        command = list(tool.command)
    else:
        command = [
            re.sub(r"\$(BASE|LOCAL|REMOTE|MERGED)", lambda m: places[m[1]], part)
            for part in tool.command
        ]
    try:
        return subprocess.run(
            command,
            env={**os.environ, **places},
            cwd=os.path.dirname(places["MERGED"]),
            check=False,
        ).returncode
    except OSError as error:
        raise Failed(f"{tool.command[0]}: cannot be started: {error.strerror}") from None


def verdict(status: int, trusted: bool, before: bytes, after: bytes | None) -> str | None:
    """Why the outcome of a tool decides nothing; None when it does.

    ``before`` and ``after`` are the contents of MERGED. A tool whose exit status says nothing
    has to have changed it.
    """
    if status < 0:
        return f"the tool was ended by signal {-status}"
    if status in (126, 127):
        return "the tool could not be started"
    if after is None:
        return "the tool left no merged file"
    if trusted and status:
        return f"the tool ended with status {status}"
    if not trusted and after == before:
        return "the tool left the merged file as it was"
    if has_markers(after):
        return "conflict markers are left in the merged file"
    return None
