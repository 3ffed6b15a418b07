"""A server that lets us in and then wants another password first.

OpenSSH tells of a password that has expired only after the login: whatever session is asked for
is answered with a line on its standard error, and ends (``do_pwchange`` in its session.c). Of a
subsystem, as SFTP is one, it throws that line away: there is an end without a reason.
"""

from __future__ import annotations

import asyncio
import re

import asyncssh

WITHIN_S = 3.0
_SAYS_SO = re.compile(r"password has expired|password change required|change your password", re.I)


async def says_expired(connection: asyncssh.SSHClientConnection) -> bool:
    """Whether a session of another kind, in which nothing is done, is told so."""
    try:
        done = await asyncio.wait_for(
            connection.run("true", stdin=asyncssh.DEVNULL, encoding="utf-8", errors="replace"),
            WITHIN_S,
        )
    except (asyncssh.Error, OSError, TimeoutError):
        return False
    return bool(_SAYS_SO.search(str(done.stderr or "")))
