"""The credentials file: passwords and passphrases that the user keeps in a file of his own.

    ["sftp://alice@nas/data"]       one volume, by its URL
    password = "..."

    ["alice@nas"]                   one account; with a port: "alice@nas:2222"
    password = "..."

    ["nas"]                         every account on a server
    passphrase = "..."              of the key that is used there; it never leaves this machine

The most exact section that has what is looked for counts. A file that others can read, or that
is not the user's, is refused as a whole: what is in it is no secret any more.
"""

from __future__ import annotations

import os
import stat
from typing import Any

from awayfs.control.config import LARGEST, config_file, parse
from awayfs.control.urls import VolumeUrl, parse_url
from awayfs.core.errors import UsageError
from awayfs.core.secrets import Secrets

_FIELDS = ("password", "passphrase")


def default_file() -> str:
    """The file that is read where none is named; it need not exist."""
    return os.path.join(os.path.dirname(config_file()), "credentials.toml")


def read(path: str, url: str) -> Secrets:
    """What the file has for a volume. ``path`` empty: the default file, which may be missing.

    Raises ``UsageError`` with one line where the file cannot be trusted, read or understood.
    """
    try:
        content = _content(path or default_file())
    except FileNotFoundError:
        if not path:
            return Secrets()
        raise UsageError(f"{path}: there is no such credentials file") from None
    sections, complaint = parse(content, path or default_file())
    if complaint is not None:
        raise UsageError(_without_content(complaint, path or default_file()))
    return _secrets(sections, parse_url(url), path or default_file())


def _content(path: str) -> bytes:
    """The bytes of a file that is the user's alone; what was checked is what is read."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    with open(fd, "rb") as file:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UsageError(f"{path}: is not a file; the credentials file must be one")
        if status.st_uid != os.geteuid():
            raise UsageError(
                f"{path}: belongs to uid {status.st_uid}, not to uid {os.geteuid()}; "
                "use a credentials file of your own"
            )
        if status.st_mode & 0o077:
            mode = stat.S_IMODE(status.st_mode)
            raise UsageError(
                f"{path}: is open to other users (mode {mode:04o}) and not used; "
                f"run: chmod 600 {path}"
            )
        return file.read(LARGEST + 1)


def _without_content(complaint: str, path: str) -> str:
    """What is wrong, without quoting: a parser may quote the very line with the password."""
    line = complaint.rpartition(" (at line ")[2].partition(",")[0]
    where = f"line {line}: " if line.isdecimal() else ""
    return (
        f"{path}: {where}is not TOML; see docs/SECURITY.md for what a credentials file looks like"
    )


def _secrets(sections: dict[str, Any], url: VolumeUrl, path: str) -> Secrets:
    found: dict[str, str] = {}
    for name in _names(url):
        section = sections.get(name, {})
        if not isinstance(section, dict):
            raise UsageError(f"{path}: {name}: must be a section, such as [{name!r}]")
        for field in _FIELDS:
            value = section.get(field, "")
            if not isinstance(value, str):
                raise UsageError(f"{path}: [{name}]: {field} must be text in quotes")
            found.setdefault(field, value) if value else None
    return Secrets(**found)


def _names(url: VolumeUrl) -> list[str]:
    """The sections that are about a volume, the most exact first."""
    host = f"[{url.host}]" if ":" in url.host else url.host
    places = [f"{host}:{url.port}", host] if url.port else [f"{host}:22", host]
    accounts = [f"{url.user}@{place}" for place in places] if url.user else []
    return [url.canonical, *accounts, *places]
