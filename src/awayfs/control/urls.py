"""What names a volume: its URL taken apart, the canonical form of it, and the id made from that.

    dir:/path                        any directory of this machine
    sftp://user@host:port/path       an absolute path on the server
    sftp://user@host/~/path          a path below the account's home directory

Paths and users are percent-encoded bytes (RFC 3986, section 2.1), so spellings that differ
in encoding alone name one volume; a character that is not encoded stands for its UTF-8 bytes.
``?`` and ``#`` are part of the path. Passwords are refused: they would end up in process lists,
histories and logs.
"""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from awayfs.control import mountinfo
from awayfs.core.errors import UsageError

OFFERED = ("dir", "sftp")
"""Schemes that this version has a remote for."""

PLANNED = ("smb", "nfs", "davs", "s3")

_CHOICE = "dir:/path or sftp://user@host/path"
_PORTS = {"sftp": 22}
_SAFE = "/~!$&'()*+,;=:@"
_AUTHORITY = re.compile(
    r"(?:(?P<user>[^@]*)@)?(?P<host>\[[0-9A-Fa-f:.%]+[^\]]*\]|[^:@\[\]]+)(?::(?P<port>[0-9]+))?"
)


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

    @property
    def canonical(self) -> str:
        """The one spelling of this URL."""
        if self.scheme == "dir":
            return "dir:" + quote_from_bytes(self.path, _SAFE)
        user = quote(self.user, errors="surrogateescape") + "@" if self.user else ""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = f":{self.port}" if self.port else ""
        path = self.path if self.path.startswith(b"/") else b"/~/" + self.path
        return f"{self.scheme}://{user}{host}{port}{quote_from_bytes(path, _SAFE)}"


def scheme_of(url: str) -> str:
    """The scheme in lower case; raises ``UsageError`` for one that is not offered."""
    scheme, colon, _ = url.partition(":")
    scheme = scheme.lower()
    if colon and scheme in OFFERED:
        return scheme
    if colon and scheme in PLANNED:
        raise UsageError(f"{scheme}: this version does not offer it; use {_CHOICE}")
    raise UsageError(f"{url}: not a URL of a share; use {_CHOICE}")


def parse_url(url: str) -> VolumeUrl:
    """Take ``url`` apart; raises ``UsageError`` for what is not understood or not allowed."""
    scheme = scheme_of(url)
    if any(ord(c) < 32 or ord(c) == 127 for c in url):
        raise UsageError("the URL has control characters in it; write them as %0A and the like")
    rest = url.partition(":")[2]
    if scheme == "dir":
        return VolumeUrl("dir", _local_path(url, rest))
    if not rest.startswith("//"):
        raise UsageError(f"{url}: the host is missing; write {scheme}://user@host/path")
    authority, slash, path = rest[2:].partition("/")
    user, host, port = _server(url, scheme, authority)
    return VolumeUrl(scheme, _remote_path(url, slash + path), host, user, port)


def canonical(url: str) -> str:
    """The one spelling of a volume's URL as typed: a relative ``dir:`` path starts from here."""
    scheme, _, rest = url.partition(":")
    if scheme.lower() == "dir" and rest and not rest.startswith("/"):
        url = f"dir:{quote_from_bytes(os.getcwdb(), _SAFE)}/{rest}"
    return parse_url(url).canonical


LOCAL = "localhost"
"""The server of a ``dir:`` volume that is on a disk of this machine."""


def server_of(url: str) -> str:
    """The host that a volume lives on, lower case; empty for what is no URL of ours.

    For ``dir:`` that is where the kernel has the directory from, if it has it from another host.
    """
    try:
        parsed = parse_url(url)
    except UsageError:
        return ""
    if parsed.scheme != "dir":
        return parsed.host
    try:
        entry = mountinfo.file_system_of(parsed.path, mountinfo.read())
    except OSError:
        return LOCAL
    return (entry.server if entry else None) or LOCAL


def mounted_from(url: str) -> str:
    """The address of the server that the kernel has a ``dir:`` volume from; empty for none."""
    parsed = parse_url(url)
    if parsed.scheme != "dir":
        return ""
    try:
        entry = mountinfo.file_system_of(parsed.path, mountinfo.read())
    except OSError:
        return ""
    return entry.server_address if entry else ""


def volume_id(url: str) -> str:
    """A readable slug and a short hash of the canonical URL; at most 48 characters."""
    address = canonical(url)
    digest = hashlib.blake2b(address.encode("utf-8", "surrogateescape"), digest_size=6)
    scheme, _, rest = address.partition(":")
    words = re.findall(r"[A-Za-z0-9]+", re.sub(r"%[0-9A-F]{2}", "-", rest))
    slug = "-".join([scheme, *words]).lower()
    if len(slug) > 35:
        slug = slug[:16].rstrip("-") + "-" + slug[-18:].lstrip("-")
    return f"{slug}-{digest.hexdigest()}"


def _server(url: str, scheme: str, authority: str) -> tuple[str | None, str, int | None]:
    found = _AUTHORITY.fullmatch(authority)
    if not found or not found["host"]:
        raise UsageError(f"{url}: the host is missing; write {scheme}://user@host/path")
    if ":" in (found["user"] or ""):
        raise UsageError(
            "the URL has a password in it, where others can read it; "
            "leave it out: 'awayfs mount' asks for it, or use a key or -o credentials=FILE"
        )
    user = unquote_to_bytes(found["user"] or "").decode("utf-8", "surrogateescape")
    host = found["host"].strip("[]").lower()
    port = int(found["port"]) if found["port"] else None
    if port is not None and not 0 < port < 65536:
        raise UsageError(f"{url}: {port} is not a port; use 1 to 65535")
    if any(ord(c) <= 32 or ord(c) == 127 for c in host + user) or host.startswith("-"):
        raise UsageError(f"{url}: the host or the user has characters that cannot be in one")
    return user or None, host, None if port == _PORTS.get(scheme) else port


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
        raise UsageError(f"{url}: a path cannot have a NUL in it; write the plain path")
    parts = [part for part in decoded.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UsageError(f"{url}: '..' in a URL may mean another directory; write the plain path")
    return parts
