"""A server that lets us in and then wants another password first.

OpenSSH tells of a password that has expired only after the login: whatever session is asked for
is answered with a line on its standard error, and ends (``do_pwchange`` in its session.c). Of a
subsystem, as SFTP is one, it throws that line away: there is an end without a reason. Where PAM
asks by keyboard-interactive, it goes on to ask for the new one (``sshpam_thread`` in auth-pam.c).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable

import asyncssh

WITHIN_S = 3.0
_SAYS_SO = re.compile(r"password has expired|password change required|change your password", re.I)
_ASKS_FOR_NEW = re.compile(r"\bnew\b.*password", re.I)


async def says_expired(connection: asyncssh.SSHClientConnection) -> bool:
    """Whether a session of another kind, in which nothing is done, is told so."""
    try:
        done = await asyncio.wait_for(
            connection.run("true", stdin=asyncssh.DEVNULL, encoding="utf-8", errors="replace"),
            WITHIN_S,
        )
    except (asyncssh.Error, OSError, TimeoutError):
        return False
    return says_so([str(done.stderr or "")])


def says_so(told: Iterable[str]) -> bool:
    """Whether any of what a server tells or asks says that it wants another password."""
    return any(map(_SAYS_SO.search, told))


def asks_for_new(told: Iterable[str]) -> bool:
    """Whether what it asks for is not the password, but which it is to be from now on."""
    return any(map(_ASKS_FOR_NEW.search, told))
