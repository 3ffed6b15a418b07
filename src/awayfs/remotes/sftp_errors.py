"""From what asyncssh raises to what the port promises.

SFTP v3 knows nine status codes (draft section 7), and OpenSSH folds errno into them
(``errno_to_portable`` in its sftp-server): ENOENT, ENOTDIR, ELOOP and EBADF become NO_SUCH_FILE;
EPERM and EACCES PERMISSION_DENIED; ENAMETOOLONG and EINVAL BAD_MESSAGE; ENOSYS OP_UNSUPPORTED;
everything else FAILURE. A FAILURE is raised as ``Failed``; who asked looks again and says what
it was.
"""

from __future__ import annotations

import asyncio
import errno

import asyncssh

from awayfs.core.errors import (
    AuthenticationRequired,
    Implausible,
    NotFound,
    Refused,
    RemoteError,
    Unreachable,
    WrongServer,
)


class Failed(Refused):
    """SSH_FX_FAILURE: refused, and the server does not say why. EIO unless told apart."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EIO, text)


class BadMessage(Refused):
    """SSH_FX_BAD_MESSAGE as an answer: ENAMETOOLONG or EINVAL at the server."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EINVAL, text)


class Unsupported(Refused):
    """SSH_FX_OP_UNSUPPORTED, or an extension that the server does not offer."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EOPNOTSUPP, text)


def from_status(code: int, text: str, path: bytes) -> RemoteError:
    """The port's error for the code and the text of a STATUS reply that is no FX_OK.

    The codes above 8 are of later drafts; some servers send them all the same.
    """
    where = f"{path.decode(errors='backslashreplace') or '/'}: {_one_line(text)}"
    match code:
        case 1:
            return Implausible(f"{where}: end of file where none can be")
        case 2 | 10:  # no such file, no such path
            return NotFound(where)
        case 3:
            return Refused(errno.EACCES, where)
        case 5:
            return _bad_message(where, path)
        case 6 | 7:  # no connection, connection lost
            return Unreachable(f"the connection was lost ({_one_line(text)})")
        case 8:
            return Unsupported(where)
        case 12:
            return Refused(errno.EROFS, where)
        case 14:
            return Refused(errno.ENOSPC, where)
        case 15:
            return Refused(errno.EDQUOT, where)
        case _:
            return Failed(where)


def _bad_message(where: str, path: bytes) -> Refused:
    if any(len(name) > 255 for name in path.split(b"/")):
        return Refused(errno.ENAMETOOLONG, where)
    return BadMessage(where)


def _one_line(text: str) -> str:
    """A server's words, fit for a log: short, and without what a terminal would obey."""
    shown = "".join(char if char.isprintable() else "?" for char in text[:200])
    return shown or "no reason given"


def from_exception(error: BaseException) -> RemoteError:
    """The port's error for anything that opening a session can raise."""
    match error:
        case RemoteError():
            return error
        case TimeoutError() | asyncio.TimeoutError():
            return Unreachable("the server does not answer")
        case asyncssh.Error() | OSError() | EOFError():
            return Unreachable(f"the connection was lost ({error})")
        case _:
            return Implausible(f"{type(error).__name__}: {error}")


def from_connecting(error: BaseException, where: str) -> RemoteError:
    """The port's error for a connection that did not come about; ``where`` is ``host:port``."""
    match error:
        case RemoteError():
            return error
        case asyncssh.HostKeyNotVerifiable():
            return WrongServer(f"{where}: {error.reason}")
        case asyncssh.PermissionDenied():
            return AuthenticationRequired(
                f"{where} accepts none of the keys we have ({error.reason}): "
                "add one with ssh-add, or name it with identity=FILE"
            )
        case asyncssh.KeyExchangeFailed() if "host key" in error.reason:
            return WrongServer(
                f"{where} has no host key of a kind that known_hosts lists ({error.reason})"
            )
        case asyncssh.KeyExchangeFailed() | asyncssh.ProtocolNotSupported():
            return Refused(errno.EPROTO, f"{where}: no common way to talk ({error.reason})")
        case asyncssh.ChannelOpenError():
            return Refused(errno.EPROTO, f"{where} offers no SFTP ({error.reason})")
        case asyncssh.KeyImportError() | asyncssh.KeyEncryptionError():
            return AuthenticationRequired(
                f"the key for {where} cannot be used ({error}): add it to the agent with ssh-add"
            )
        case TimeoutError() | asyncio.TimeoutError():
            return Unreachable(f"{where} does not answer")
        case ConnectionRefusedError():
            return Unreachable(f"{where} refuses connections: no SSH server listens there")
        case OSError():
            return Unreachable(f"{where} cannot be reached: {error.strerror or error}")
        case asyncssh.Error():
            return Unreachable(f"{where}: {error.reason}")
        case _:
            return Refused(errno.EPROTO, f"{where}: {type(error).__name__}: {error}")
