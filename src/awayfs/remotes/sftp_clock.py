"""When is a whole-second mtime old enough to prove that content did not change?

SFTP v3 shows an mtime in whole seconds and no change time (draft-ietf-secsh-filexfer-02,
section 5). Two edits in one second that leave the size alone look the same. An observation
``(size, mtime=m)`` is therefore *weak* until no later edit can be stamped ``m`` any more,
that is until the clock that stamps the server's files has passed ``m + 1``.

Let ``S(t)`` be that clock at the local monotonic instant ``t``. We never see it, and the wall
clock of this machine says nothing about it (a Raspberry Pi without a network time source
resumes where it was switched off). What can be proven:

(a) A mtime ``w`` that the server itself has just put on something we made, in a reply that
    reached us at ``r``, shows ``S(r) >= w``; from then on ``S(t) >= w + RATE * (t - r)``,
    where RATE of 0.999 allows for clocks that run at different speeds (hardware drifts by
    100 ppm, NTP slews by 500). That is a lower bound for every later instant. An observation
    whose request left at ``t`` is strong if it reaches ``m + 1 + MARGIN`` at ``t``. Mtimes of
    other people's files are no such proof: anybody can set them.

(b) As long as there was no (a): if the *same object* showed the same ``m`` in a reply that
    reached us at ``r``, and ``m`` was stamped by the clock or set to a moment that had
    passed, then ``S(r) >= m``, and ``S(t) >= m + (t - r)``: strong once ``t - r`` has reached
    ``1 s + MARGIN``.

``MARGIN`` of one second absorbs the kernel's coarse clock (10 ms) and small steps backwards.

Limits, said aloud. Somebody who edits a file, keeps its size, and sets its mtime back to the
old second stays invisible in v3. Under (b), a mtime set to the future by hand is taken as
strong after two seconds, although an edit at exactly that second, same size, would look the
same; under (a) it stays weak until its second has passed. A server clock that is set back by
more than the margin during a session can make (a) wrong; a new session starts from nothing.
"""

from __future__ import annotations

from collections import OrderedDict

SECOND = 1_000_000_000
MARGIN = SECOND
REMEMBERED = 65_536
"""How many objects (b) remembers; the oldest are forgotten and count as just seen."""


class ServerClock:
    """Bounds on the clock of one server during one session. Pure: instants are passed in.

    All ``*_ns`` are nanoseconds of one local monotonic clock; mtimes are whole seconds.
    """

    def __init__(self, remembered: int = REMEMBERED) -> None:
        self._offset_ns: int | None = None  # S(t) >= RATE * t + offset
        self._seen: OrderedDict[bytes, tuple[int, int]] = OrderedDict()
        self._remembered = remembered

    @property
    def known(self) -> bool:
        """Whether the server has shown us its clock (case (a) of the module)."""
        return self._offset_ns is not None

    def stamped(self, mtime: int, received_ns: int) -> None:
        """Learn from a mtime that the server's clock gave to something we had just made."""
        offset = mtime * SECOND - _slowly(received_ns)
        if self._offset_ns is None or offset > self._offset_ns:
            self._offset_ns = offset
        self._seen.clear()

    def weak(self, path: bytes, mtime: int, sent_ns: int, received_ns: int) -> bool:
        """Whether a later edit of ``path`` could still be stamped ``mtime``.

        ``sent_ns`` is when the request of this observation left, ``received_ns`` when its
        reply was here: the server looked somewhere in between.
        """
        if self._offset_ns is not None:
            return _slowly(sent_ns) + self._offset_ns < (mtime + 1) * SECOND + MARGIN
        seen = self._seen.get(path)
        if seen is not None and seen[0] == mtime:
            return sent_ns - seen[1] < SECOND + MARGIN
        self._remember(path, mtime, received_ns)
        return True

    def forget(self, path: bytes) -> None:
        """Drop what is remembered of a path where another object was put."""
        self._seen.pop(path, None)

    def _remember(self, path: bytes, mtime: int, received_ns: int) -> None:
        self._seen[path] = (mtime, received_ns)
        self._seen.move_to_end(path)
        while len(self._seen) > self._remembered:
            self._seen.popitem(last=False)


def _slowly(local_ns: int) -> int:
    """RATE times a local instant."""
    return local_ns - local_ns // 1000
