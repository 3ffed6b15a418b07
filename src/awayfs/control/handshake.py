"""How ``awayfs mount`` starts a daemon and learns that it is ready.

The command runs ``python -P -m awayfs.daemon`` with one line of JSON on its standard input,
so that nothing about a volume shows in the list of processes:

    {"url": "sftp://u@h/p", "mountpoint": "/mnt/p", "volume": "sftp-...", "foreground": false,
     "ready_fd": 7, "options": {"ro": false, ..., every field of MountOptions},
     "secrets": {"password": "..."}}         what a person was asked for; usually nothing

and reads one line from the pipe whose writing end the daemon inherits as ``ready_fd`` (null
with ``-f``, where nobody waits):

    {"ready": true, "mode": "connected"}     the mount can be used; the daemon stays; a
                                             "note" is one line that the user should see
    {"error": "one line", "kind": "..."}     it cannot; the daemon ends with status 1. Kinds are
                                             those of ``awayfs.control.messages``
    end of file                              it died; the reason is in daemon.log

``mountpoint`` is carried as names are (``awayfs.control.messages``).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field

from awayfs.control.messages import bytes_of, decode, encode, kind_of, one_line, text_of
from awayfs.control.options import MountOptions
from awayfs.core.secrets import Secrets

COMMAND = ("-P", "-m", "awayfs.daemon")
"""What to give to the interpreter."""


@dataclass(frozen=True, slots=True)
class StartRequest:
    """Everything a daemon needs to know to serve one mount."""

    url: str  # canonical
    mountpoint: bytes  # absolute
    volume: str  # the volume's id
    options: MountOptions = field(default_factory=MountOptions)
    foreground: bool = False
    ready_fd: int | None = None
    secrets: Secrets = field(default_factory=Secrets)

    def encode(self) -> bytes:
        """The line for the daemon."""
        return encode(
            {
                "url": self.url,
                "mountpoint": text_of(self.mountpoint),
                "volume": self.volume,
                "options": self.options.as_dict(),
                "foreground": self.foreground,
                "ready_fd": self.ready_fd,
                "secrets": self.secrets.named(),
            }
        )

    @classmethod
    def decode(cls, line: bytes) -> StartRequest:
        """The request of one line."""
        fields = decode(line)
        return cls(
            url=fields["url"],
            mountpoint=bytes_of(fields["mountpoint"]),
            volume=fields["volume"],
            options=MountOptions.from_dict(fields["options"]),
            foreground=fields["foreground"],
            ready_fd=fields["ready_fd"],
            secrets=Secrets(**fields.get("secrets", {})),
        )


def receive(fd: int = 0) -> StartRequest:
    """In the daemon: read the request, then let go of the caller's input and directory."""
    line = b""
    while not line.endswith(b"\n") and (more := os.read(fd, 65536)):
        line += more
    request = StartRequest.decode(line)
    if request.ready_fd is not None:
        os.set_inheritable(request.ready_fd, False)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, fd)
    os.close(null)
    os.chdir("/")
    return request


def report_ready(request: StartRequest, mode: str, note: str = "") -> None:
    """In the daemon: the mount can be used; ``note`` is what the user should know of it."""
    _report(request, encode({"ready": True, "mode": mode, "note": one_line(note)}))


def report_error(request: StartRequest, error: Exception, message: str = "") -> None:
    """In the daemon: there will be no mount; the message is one line for the user."""
    said = one_line(message or str(error))
    _report(request, encode({"error": said, "kind": kind_of(error)}))


def _report(request: StartRequest, line: bytes) -> None:
    if request.ready_fd is None:
        return
    try:
        os.write(request.ready_fd, line)
        os.close(request.ready_fd)
    except OSError:
        pass  # the command was interrupted; the mount stands all the same
