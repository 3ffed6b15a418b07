"""Kerberos tickets that are in no file of ours, as ``klist`` tells of them.

Only Kerberos itself can read a cache in the kernel's keys (``KEYRING:``) or in a daemon (``KCM:``),
and only it knows which one ``krb5.conf`` names where ``KRB5CCNAME`` is not set.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from collections.abc import Mapping

LISTED_WITHIN_S = 1.0
_TICKET = b"krbtgt/"
"""What a person gets from ``kinit``; with it, whoever logs in gets tickets for servers."""


def listed(environment: Mapping[str, str]) -> tuple[bytes, ...]:
    """A line for each ticket of a person's: for whom, from when and until when. Blocks.

    Nothing where nobody here would use them, or ``klist`` is missing, or does not end in time.
    """
    program = shutil.which("klist", path=environment.get("PATH"))
    if program is None or not usable():
        return ()
    try:
        done = subprocess.run(
            [program, "-A"],
            env={**environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=LISTED_WITHIN_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return tuple(sorted(line.strip() for line in done.stdout.splitlines() if _TICKET in line))


def usable() -> bool:
    """Whether the library is installed by which tickets are shown to a server."""
    return importlib.util.find_spec("gssapi") is not None
