"""What names a volume: its URL, the canonical form of that, and the id made from it.

Paths and users are percent-encoded bytes (RFC 3986, section 2.1), so spellings that differ
in encoding alone name one volume; ``sftp://host/~/x`` is below the account's home directory.
"""

from __future__ import annotations

import hashlib
import os
import re
from urllib.parse import quote, quote_from_bytes, unquote_to_bytes

from awayfs.core.errors import UsageError

OFFERED = ("dir", "sftp")
"""Schemes that this version has a remote for."""

PLANNED = ("smb", "nfs", "davs", "s3")

_PORTS = {"sftp": 22}
_SAFE = "/~!$&'()*+,;=:@"
_AUTHORITY = re.compile(r"(?:(?P<user>[^@]*)@)?(?P<host>\[[^\]]+\]|[^:\[\]]+)(?::(?P<port>\d+))?")


def scheme_of(url: str) -> str:
    """The scheme in lower case; raises ``UsageError`` for one that is not offered."""
    scheme, colon, _ = url.partition(":")
    scheme = scheme.lower()
    if colon and scheme in OFFERED:
        return scheme
    if colon and scheme in PLANNED:
        raise UsageError(f"{scheme}: this version does not offer it; use {_choice()}")
    raise UsageError(f"{url}: not a URL of a share; use {_choice()}")


def canonical(url: str) -> str:
    """The one spelling of a volume's URL; raises ``UsageError`` for what cannot be one."""
    scheme = scheme_of(url)
    rest = url.partition(":")[2]
    if any(ord(c) < 32 or ord(c) == 127 for c in url):
        raise UsageError("the URL has control characters in it; write them as %0A and the like")
    if scheme == "dir":
        return "dir:" + _local(rest)
    if not rest.startswith("//"):
        raise UsageError(f"{url}: a server is missing; write {scheme}://user@host/path")
    authority, slash, path = rest[2:].partition("/")
    return f"{scheme}://{_authority(url, scheme, authority)}{_path(slash + path)}"


def server_of(url: str) -> str:
    """The host of a URL, lower case; empty where there is none (``dir:``)."""
    rest = url.partition(":")[2]
    if not rest.startswith("//"):
        return ""
    match = _AUTHORITY.fullmatch(rest[2:].partition("/")[0])
    return match["host"].strip("[]").lower() if match else ""


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


def _authority(url: str, scheme: str, authority: str) -> str:
    match = _AUTHORITY.fullmatch(authority)
    if not match:
        raise UsageError(f"{url}: the server is not understood; write {scheme}://user@host/path")
    user, host, port = match["user"], match["host"].lower(), match["port"]
    if user and ":" in user:
        raise UsageError(
            "the URL has a password in it; use an ssh agent, a key or -o identity=FILE"
        )
    if port and not 0 < int(port) < 65536:
        raise UsageError(f"{port}: not a port; use 1 to 65535")
    prefix = f"{quote(unquote_to_bytes(user))}@" if user else ""
    suffix = f":{int(port)}" if port and int(port) != _PORTS.get(scheme) else ""
    return prefix + host + suffix


def _local(path: str) -> str:
    if not path:
        raise UsageError("dir: a path is missing; write dir:/path")
    if not path.startswith("/"):
        path = quote_from_bytes(os.getcwdb(), _SAFE) + "/" + path
    return "/" + "/".join(_parts(path))


def _path(path: str) -> str:
    parts = _parts(path)
    return "/~/" + "/".join(parts[1:]) if parts[:1] == ["~"] else "/" + "/".join(parts)


def _parts(path: str) -> list[str]:
    """The names of a path, each in its one encoding."""
    decoded = unquote_to_bytes(os.fsencode(path))
    parts = [part for part in decoded.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise UsageError(f"{path}: '..' in a URL may mean another directory; write the plain path")
    if b"\0" in decoded:
        raise UsageError(f"{path}: a path cannot have a NUL in it; write the plain path")
    return [quote_from_bytes(part, _SAFE) for part in parts]


def _choice() -> str:
    return "dir:/path or sftp://user@host/path"
