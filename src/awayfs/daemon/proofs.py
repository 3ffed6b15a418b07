"""What can be shown to a server, seen from outside: whether it is something else by now.

A server that refused all we have is left alone for long (``volume/refusal_pause.py``). A key that
was added to the agent, another password in the credentials file, a new ticket or a keyring that
was opened is a reason to try at once. Looked at is what can be had without asking anybody: the
agent's list of keys, times of files, the keyring's lock, Kerberos' list of tickets. Nothing secret
is read.
"""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import struct
from collections.abc import Callable, Mapping

from awayfs.control import credentials, keyring_lock
from awayfs.control.keyring_lock import Lock
from awayfs.daemon import tickets

AGENT_WITHIN_S = 1.0
_REQUEST_IDENTITIES = struct.pack(">IB", 1, 11)
"""SSH_AGENTC_REQUEST_IDENTITIES (draft-ietf-sshm-ssh-agent, section 4.4)."""
_LARGEST_ANSWER = 256 << 10

Look = Mapping[str, object]


class Proofs:
    """``files`` are those that the mount names, with what they are."""

    def __init__(
        self,
        environment: Mapping[str, str],
        credentials_file: str = "",
        files: Mapping[str, str] | None = None,
        locked: Callable[[], Lock] = keyring_lock.look,
    ) -> None:
        self._agent = environment.get("SSH_AUTH_SOCK", "")
        self._home = environment.get("HOME") or os.path.expanduser("~")
        self._environment = environment
        self._files = {
            "the credentials file": credentials_file or credentials.default_file(),
            **{what: os.path.expanduser(path) for what, path in (files or {}).items() if path},
        }
        self._locked = locked

    def look(self) -> Look:
        """How each of them is now; to be compared with another look. Blocks for a moment."""
        return {
            "the agent's keys": agent_keys(self._agent),
            "the key files": _directory(os.path.join(self._home, ".ssh")),
            "the Kerberos ticket": _ticket(self._environment),
            "the keyring's lock": self._locked(),
            **{what: _file(path) for what, path in self._files.items()},
        }


def changed(before: Look, now: Look) -> str:
    """What is another one now, for a person; empty: nothing."""
    return ", ".join(what for what, state in now.items() if before.get(what) != state)


def agent_keys(address: str) -> str | None:
    """A digest of what an agent lists; None where none answers in time."""
    if not address:
        return None
    try:
        with socket.socket(socket.AF_UNIX) as agent:
            agent.settimeout(AGENT_WITHIN_S)
            agent.connect(address)
            agent.sendall(_REQUEST_IDENTITIES)
            (length,) = struct.unpack(">I", _exactly(agent, 4))
            answer = _exactly(agent, min(length, _LARGEST_ANSWER))
    except (OSError, ValueError, struct.error):
        return None
    return hashlib.blake2b(answer, digest_size=16).hexdigest()


def _exactly(connection: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count and (more := connection.recv(count - len(found))):
        found += more
    return found


def _file(path: str) -> tuple[int, int, int] | None:
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    if not stat.S_ISREG(status.st_mode):
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _directory(path: str) -> dict[str, object] | None:
    """Its files; ``known_hosts`` is no proof of ours, nor is the socket of a connection."""
    try:
        names = sorted(os.listdir(path))
    except OSError:
        return None
    shown = [name for name in names[:1000] if not name.startswith("known_hosts")]
    found = {name: _file(os.path.join(path, name)) for name in shown}
    return {name: state for name, state in found.items() if state is not None}


def _ticket(environment: Mapping[str, str]) -> object:
    """The cache that is used; where that is up to Kerberos, its usual file, too."""
    cache = environment.get("KRB5CCNAME", "")
    kind, colon, path = cache.partition(":")
    if not cache:
        usual = f"/tmp/krb5cc_{os.getuid()}"  # noqa: S108
        return _file(usual), tickets.listed(environment)
    if not colon or kind == "FILE":
        return _file(path if colon else cache)
    return _directory(path) if kind == "DIR" else tickets.listed(environment)
