"""What an SFTP server can do, and who we are there."""

from __future__ import annotations

from awayfs.ports.remote import Capabilities, Guard
from awayfs.remotes.putting import LARGEST_PUT
from awayfs.remotes.sftp_connection import Session

IN_FLIGHT = 32
SENDING_IN_FLIGHT = 512


def is_root(session: Session) -> bool:
    """Whether files can be given to others."""
    return bool(session.connection.get_extra_info("username") == "root")


def capabilities(session: Session) -> Capabilities:
    """See the port; of what the server showed when we connected."""
    extensions = session.extensions
    return Capabilities(
        guard=Guard.ASIDE,
        stable_ids=False,
        strong_tokens=False,
        time_granularity_ns=1_000_000_000,
        symlinks=True,
        hard_links=extensions.hard_link,
        special_files=False,
        mode=True,
        owner=is_root(session),
        set_mtime=True,
        xattrs=False,
        exchange=False,
        case_sensitive=True,
        read_only=extensions.read_only,
        name_max=255,
        largest_io=session.quick.largest_read,
        in_flight=IN_FLIGHT,
        sending=SENDING_IN_FLIGHT,
        put=LARGEST_PUT,
        acts_unseen=True,
    )
