"""Every error awayfs raises on purpose, as one tree.

    AwayfsError
    ├── RemoteError                 an answer, or the lack of one, from a server
    │   ├── Unreachable             no answer: nothing is known of what was executed
    │   ├── AuthenticationRequired  the server wants credentials we do not have
    │   │   ├── PasswordRequired    a password would do: there is none, or it was refused
    │   │   └── PassphraseRequired  a key is there, and its passphrase is missing or wrong
    │   ├── WrongServer             another machine, or another volume, answered
    │   ├── NotFound                the path does not exist, and the server said so
    │   ├── Refused(errno)          the server said no: permission, read-only, quota, name, size
    │   └── Implausible             an answer that proves nothing (cut short, contradictory)
    ├── StoreError                  the state directory cannot be used
    │   ├── StoreInUse              another daemon holds the volume
    │   └── StoreDamaged            the database had to be set aside
    └── UsageError                  what the user asked cannot be done as asked

Only ``Unreachable`` leads offline. Only ``NotFound`` proves absence.

A file system operation fails with ``OSError``; the errnos of disconnected operation
(DESIGN section 4) are the constants at the end.
"""

from __future__ import annotations

import errno


class AwayfsError(Exception):
    """Base of all errors raised on purpose; ``str()`` is one line fit for a user."""


class RemoteError(AwayfsError):
    """The server's answer, or its absence, kept an operation from happening."""


class Unreachable(RemoteError):
    """No answer in time, or no connection. A mutation may or may not have been executed."""


class AuthenticationRequired(RemoteError):
    """The server asks for credentials that are missing, expired or refused."""


class PasswordRequired(AuthenticationRequired):
    """The server takes passwords; there is none, or the one that was shown was refused."""


class PassphraseRequired(AuthenticationRequired):
    """A key is encrypted; its passphrase is missing or wrong. The server was not asked."""


class WrongServer(RemoteError):
    """Who answered is not who we know: host key, certificate or volume identity differ."""


class NotFound(RemoteError):
    """The server says that the path does not exist."""


class Refused(RemoteError):
    """The server refused; ``errno`` says why (EACCES, EROFS, EDQUOT, ENAMETOOLONG, ...)."""

    def __init__(self, code: int, text: str = "") -> None:
        super().__init__(text or errno.errorcode.get(code, str(code)))
        self.errno = code


class Implausible(RemoteError):
    """An answer that must not be believed: a listing cut short, a length that does not fit."""


class StoreError(AwayfsError):
    """The state directory or database cannot be used."""


class StoreInUse(StoreError):
    """Another daemon serves this volume."""


class StoreDamaged(StoreError):
    """The database failed its integrity check; it was set aside, never deleted."""


class UsageError(AwayfsError):
    """The request cannot be carried out as asked; the text says what to do instead."""


# The errors of disconnected operation. With ``errno=posix`` a program sees the POSIX number,
# with ``errno=distinct`` the awayfs number; FUSE carries 1 to 511.
EDISCONNECTED = 501
EDISCONDATA = 502
EDISCONPERM = 503
EDISCONFULL = 504
ECONFLICTED = 505

POSIX_ERRNO = {
    EDISCONNECTED: errno.ENETDOWN,
    EDISCONDATA: errno.ENODATA,
    EDISCONPERM: errno.EACCES,
    EDISCONFULL: errno.ENOSPC,
    ECONFLICTED: errno.EBUSY,
}

DISCONNECTED_TEXT = {
    EDISCONNECTED: "the server is not reachable and this is not known here",
    EDISCONDATA: "the server is not reachable and the content is not in the cache",
    EDISCONPERM: "the server is not reachable and this permission is not known here",
    EDISCONFULL: "the cache is full of changes that cannot be sent while disconnected",
    ECONFLICTED: "the file is in conflict",
}

DISCONNECTED_NAME = {
    EDISCONNECTED: "EDISCONNECTED",
    EDISCONDATA: "EDISCONDATA",
    EDISCONPERM: "EDISCONPERM",
    EDISCONFULL: "EDISCONFULL",
    ECONFLICTED: "ECONFLICTED",
}
