"""From a URL to a remote: what is understood, and which adapter serves it.

    dir:/path                        any directory of this machine
    sftp://user@host:port/path       an absolute path on the server
    sftp://user@host/~/path          a path below the account's home directory

Paths are percent-encoded bytes (RFC 3986, section 2.1); a character that is not encoded
stands for its UTF-8 bytes. ``?`` and ``#`` are part of the path. Passwords are refused:
they would end up in process lists, histories and logs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from awayfs.core.errors import UsageError
from awayfs.ports.remote import Remote
from awayfs.remotes.isolated import IsolatedRemote

DEFAULT_PORT = {"sftp": 22}
KNOWN = ("dir", "sftp")
PLANNED = ("smb", "nfs", "davs", "s3")

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):(.*)", re.DOTALL)
_AUTHORITY = re.compile(
    r"(?:(?P<user>[^@]*)@)?(?P<host>\[[0-9A-Fa-f:.%]+[^\]]*\]|[^:@\[\]]+)(?::(?P<port>[0-9]+))?"
)
_SAFE = "/~!$&'()*+,;=:@"


@dataclass(frozen=True, slots=True)
class VolumeUrl:
    """A parsed URL. ``path`` is decoded; ``host`` is lower case, without brackets, or empty.

    ``path`` is absolute, or, with ``sftp://host/~/x``, relative to the home directory
    (``b"x"``; ``b""`` is the home directory itself). ``port`` is None for the usual one.
    """

    scheme: str
    path: bytes
    host: str = ""
    user: str | None = None
    port: int | None = None


def parse_url(url: str) -> VolumeUrl:
    """Take ``url`` apart; raises ``UsageError`` for what is not understood or not allowed."""
    found = _SCHEME.fullmatch(url)
    scheme = found[1].lower() if found else ""
    if not found or scheme not in KNOWN:
        raise UsageError(_unknown(url, scheme))
    if scheme == "dir":
        return VolumeUrl("dir", _local_path(url, found[2]))
    if not found[2].startswith("//"):
        raise UsageError(f"{url}: the host is missing; write {scheme}://user@host/path")
    authority, slash, path = found[2][2:].partition("/")
    user, host, port = _server(url, scheme, authority)
    return VolumeUrl(scheme, _remote_path(url, slash + path), host, user, port)


def canonical_url(url: str) -> str:
    """One spelling for all spellings of a volume: what a volume is known by."""
    parsed = parse_url(url)
    if parsed.scheme == "dir":
        return "dir:" + quote_from_bytes(parsed.path, _SAFE)
    user = quote(parsed.user, errors="surrogateescape") + "@" if parsed.user else ""
    host = f"[{parsed.host}]" if ":" in parsed.host else parsed.host
    port = f":{parsed.port}" if parsed.port else ""
    path = parsed.path if parsed.path.startswith(b"/") else b"/~/" + parsed.path
    return f"{parsed.scheme}://{user}{host}{port}{quote_from_bytes(path, _SAFE)}"


def open_remote(url: str, options: Mapping[str, str]) -> IsolatedRemote:
    """The remote for ``url``, in a process of its own; nothing is contacted before connect.

    Option ``stall`` is the deadline without progress in seconds; all others are the
    adapter's.
    """
    parse_url(url)
    own = dict(options)
    try:
        stall = float(own.pop("stall", "2"))
    except ValueError:
        raise UsageError(f"stall={options['stall']}: give seconds, such as stall=2") from None
    return IsolatedRemote(url, own, stall=stall)


def build_adapter(url: str, options: Mapping[str, str]) -> Remote:
    """The adapter itself, for the worker process. Client libraries are imported only here."""
    parsed = parse_url(url)
    if parsed.scheme == "dir":
        from awayfs.remotes.directory import DirectoryRemote

        return DirectoryRemote(parsed.path)
    from awayfs.remotes.sftp import SftpRemote

    return SftpRemote(parsed, options)


def _unknown(url: str, scheme: str) -> str:
    known = "dir:/path or sftp://user@host/path"
    if scheme in PLANNED:
        return f"{scheme}: is not in this version; use {known}"
    return f"{url}: not a URL of a share; use {known}"


def _server(url: str, scheme: str, authority: str) -> tuple[str | None, str, int | None]:
    found = _AUTHORITY.fullmatch(authority)
    if not found or not found["host"]:
        raise UsageError(f"{url}: the host is missing; write {scheme}://user@host/path")
    user = unquote_to_bytes(found["user"] or "").decode("utf-8", "surrogateescape")
    if ":" in (found["user"] or ""):
        raise UsageError(
            f"{scheme}: a password does not belong into a URL, where others can read it; "
            "use an agent, a key or an option"
        )
    host = found["host"].strip("[]").lower()
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 0 < port < 65536:
        raise UsageError(f"{url}: {port} is not a port; use 1 to 65535")
    if any(ord(c) <= 32 or ord(c) == 127 for c in host + user) or host.startswith("-"):
        raise UsageError(f"{url}: the host or the user has characters that cannot be in one")
    return user or None, host, None if port == DEFAULT_PORT.get(scheme) else port


def _remote_path(url: str, path: str) -> bytes:
    parts = _parts(url, path)
    if parts[:1] == [b"~"]:
        return b"/".join(parts[1:])
    return b"/" + b"/".join(parts)


def _local_path(url: str, path: str) -> bytes:
    if not path.startswith("/"):
        raise UsageError(f"{url}: the path must be absolute; write dir:/path")
    return b"/" + b"/".join(_parts(url, path))


def _parts(url: str, path: str) -> list[bytes]:
    decoded = unquote_to_bytes(os.fsencode(path))
    if b"\0" in decoded:
        raise UsageError(f"{url}: a path cannot have a NUL in it")
    parts = [part for part in decoded.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UsageError(f"{url}: '..' may lead elsewhere on the server; write the plain path")
    return parts
