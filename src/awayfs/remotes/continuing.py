"""Whether what is staged on the server is the beginning of what is to be sent."""

from __future__ import annotations

import os
from typing import Final

from awayfs.core.types import Entry, Kind

TAIL: Final = 64 << 10
"""So many bytes before the place where an upload goes on are compared."""


def continues(there: Entry, start: int, token: bytes, fd: int, tail: bytes) -> bool:
    """Whether an upload of ``fd`` may go on at ``start`` of ``there``, whose bytes up to that
    place end in ``tail``.

    What a part that was cut off left behind the last one that is known to be durable is written
    again. Where nothing is behind it, the file must be as the last part left it (``token``).
    """
    if there.kind is not Kind.FILE or there.size < start or not tail:
        return False
    if there.size == start and there.token != token:
        return False
    return os.pread(fd, len(tail), start - len(tail)) == tail
