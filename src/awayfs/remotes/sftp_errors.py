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


def from_status(error: asyncssh.SFTPError, path: bytes) -> RemoteError:
    """The port's error for a status reply, or for a session that ended under the request."""
    where = f"{path.decode(errors='backslashreplace') or '/'}: {error.reason or 'no reason given'}"
    match error:
        case asyncssh.SFTPConnectionLost() | asyncssh.SFTPNoConnection():
            return Unreachable(f"the connection was lost ({error.reason})")
        case asyncssh.SFTPNoSuchFile() | asyncssh.SFTPNoSuchPath():
            return NotFound(where)
        case asyncssh.SFTPPermissionDenied():
            return Refused(errno.EACCES, where)
        case asyncssh.SFTPOpUnsupported():
            return Unsupported(where)
        case asyncssh.SFTPBadMessage():
            return BadMessage(where)
        case asyncssh.SFTPNoSpaceOnFilesystem():
            return Refused(errno.ENOSPC, where)
        case asyncssh.SFTPQuotaExceeded():
            return Refused(errno.EDQUOT, where)
        case asyncssh.SFTPWriteProtect():
            return Refused(errno.EROFS, where)
        case asyncssh.SFTPEOFError():
            return Implausible(f"{where}: end of file where none can be")
        case _:
            return Failed(where)


def from_exception(error: BaseException, path: bytes) -> RemoteError:
    """The port's error for anything a request on an open session can raise."""
    match error:
        case RemoteError():
            return error
        case asyncssh.SFTPError():
            return from_status(error, path)
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
