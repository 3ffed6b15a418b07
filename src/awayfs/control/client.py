"""Asking a daemon: one connection, plain blocking sockets, a bound on every wait."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

from awayfs.control.address import short
from awayfs.control.messages import ANSWER_WITHIN, ControlError, decode, encode
from awayfs.control.mounts import MountInfo, find_mounts, mount_of

__all__ = ["Client", "ControlError", "MountInfo", "find_mounts", "mount_of"]

Progress = Callable[[dict[str, Any]], None]


class Client:
    """A connection to the daemon that listens at ``path``; made on the first call."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self._last_id = 0

    def call(
        self,
        method: str,
        params: Mapping[str, Any] | None = None,
        timeout: float = ANSWER_WITHIN,
        on_progress: Progress | None = None,
    ) -> dict[str, Any]:
        """The result of a request; raises ``ControlError`` when it fails.

        ``timeout`` bounds silence, not work: a daemon that works on the request shows signs
        of life, so only one that is stuck or stopped runs into it.
        """
        self._last_id += 1
        try:
            connection = self._connected(timeout)
            request = {"id": self._last_id, "method": method, "params": params or {}}
            connection.sendall(encode(request))
            while True:
                message = decode(self._line(connection, timeout))
                if message.get("id") not in (self._last_id, None):
                    continue  # left over from a call that was given up
                if "result" in message:
                    return _result(message["result"])
                if "error" in message:
                    raise _failure(message["error"])
                if "progress" in message and on_progress is not None:
                    on_progress(message["progress"])
        except TimeoutError:
            self.close()
            raise ControlError(
                f"the daemon has not answered for {timeout:g} s; "
                "see its daemon.log, or end it with 'awayfs umount --lazy'",
                "no-answer",
            ) from None
        except OSError as error:
            self.close()
            raise ControlError(
                f"no connection to the daemon: {error.strerror}", "not-running"
            ) from None

    def close(self) -> None:
        """End the connection; the daemon then gives up what it was doing for it."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._buffer.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _connected(self, timeout: float) -> socket.socket:
        if self._socket is None:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.settimeout(timeout)
            try:
                with short(self._path) as name:
                    connection.connect(name)
            except (BlockingIOError, TimeoutError):
                connection.close()
                raise TimeoutError from None
            except OSError as error:
                connection.close()
                raise ControlError(
                    f"no daemon is running for this mount ({error.strerror}); "
                    "clean up with 'awayfs umount' and mount again",
                    "not-running",
                ) from None
            self._socket = connection
        return self._socket

    def _line(self, connection: socket.socket, timeout: float) -> bytes:
        """The next line; the bound holds for the whole of a silence, not for each byte."""
        searched = 0
        deadline = time.monotonic() + timeout
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            connection.settimeout(max(deadline - time.monotonic(), 0.001))
            more = connection.recv(1 << 18)
            if not more:
                self.close()
                raise ControlError(
                    "the daemon ended while it was asked; see its daemon.log", "not-running"
                )
            self._buffer += more
            if len(more) == 1 << 18:
                deadline = time.monotonic() + timeout
        line = bytes(self._buffer[: end + 1])
        del self._buffer[: end + 1]
        return line


def _result(result: object) -> dict[str, Any]:
    if not isinstance(result, dict):
        raise ControlError("the daemon's answer is not understood; mount again", "bad-reply")
    return result


def _failure(error: object) -> ControlError:
    if isinstance(error, dict):
        return ControlError(str(error.get("message", "failed")), str(error.get("kind", "failed")))
    return ControlError(str(error))
