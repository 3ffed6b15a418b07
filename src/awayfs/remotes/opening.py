"""From a URL to a remote: which adapter serves it, in a process of its own."""

from __future__ import annotations

from collections.abc import Mapping

from awayfs.control.urls import VolumeUrl, parse_url
from awayfs.core.errors import UsageError
from awayfs.ports.remote import Remote
from awayfs.remotes.isolated import IsolatedRemote

__all__ = ["VolumeUrl", "build_adapter", "open_remote", "parse_url"]


def open_remote(url: str, options: Mapping[str, str]) -> IsolatedRemote:
    """The remote for ``url``, in a process of its own; nothing is contacted before connect.

    Option ``stall`` is the deadline without progress in seconds; all others are the
    adapter's.
    """
    rests = parse_url(url).scheme != "dir"  # that adapter may hold a mount busy, or hang in it
    own = dict(options)
    try:
        stall = float(own.pop("stall", "2"))
    except ValueError:
        raise UsageError(f"stall={options['stall']}: give seconds, such as stall=2") from None
    return IsolatedRemote(url, own, stall=stall, rests=rests)


def build_adapter(url: str, options: Mapping[str, str]) -> Remote:
    """The adapter itself, for the worker process. Client libraries are imported only here."""
    parsed = parse_url(url)
    if parsed.scheme == "dir":
        from awayfs.remotes.directory import DirectoryRemote

        return DirectoryRemote(parsed.path, options.get("client", ""))
    from awayfs.remotes.sftp import SftpRemote

    return SftpRemote(parsed, options)
