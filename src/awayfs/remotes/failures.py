"""What a call to a worker raised, as a message."""

from __future__ import annotations

import msgspec

from awayfs.core.errors import (
    AuthenticationRequired,
    Implausible,
    NotFound,
    PassphraseRequired,
    PasswordRequired,
    Refused,
    RemoteError,
    Unreachable,
    UsageError,
    WrongServer,
)

ERRORS: dict[str, type[RemoteError] | type[UsageError]] = {
    kind.__name__: kind
    for kind in (
        Unreachable,
        PasswordRequired,
        PassphraseRequired,
        AuthenticationRequired,
        WrongServer,
        NotFound,
        Implausible,
        UsageError,
    )
}
CANCELLED = "Cancelled"


class Failure(msgspec.Struct, frozen=True, array_like=True, tag="failure"):
    """The call raised: ``error`` is a key of ``ERRORS``, or OSError, or Cancelled."""

    id: int
    error: str
    text: str
    code: int = 0


def failure_of(request: int, error: BaseException) -> Failure:
    """An exception as a message. What is no remote's error at all becomes ``Implausible``."""
    if isinstance(error, Refused):
        return Failure(request, "Refused", str(error), error.errno)
    for name, kind in ERRORS.items():
        if isinstance(error, kind):
            return Failure(request, name, str(error))
    if isinstance(error, OSError):
        return Failure(request, "OSError", error.strerror or str(error), error.errno or 0)
    return Failure(request, "Implausible", f"the adapter failed: {error!r}")


def error_of(failure: Failure) -> Exception:
    """The exception that a message stands for."""
    if failure.error == "Refused":
        return Refused(failure.code, failure.text)
    if failure.error == "OSError":
        return OSError(failure.code, failure.text)
    return ERRORS.get(failure.error, Implausible)(failure.text)
