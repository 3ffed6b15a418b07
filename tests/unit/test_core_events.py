"""The log of events: positions, gaps, readers that are slow, and the file that it is read as."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from awayfs.core.events import EventFile, EventKind, EventLog, EventReader, Sparing


def filled(count: int, most: int = 1000, most_bytes: int = 1 << 20) -> EventLog:
    log = EventLog(most, most_bytes)
    for number in range(count):
        log.tell(EventKind.MODE, number, f"event {number + 1}")
    return log


def parsed(data: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in data.splitlines() if line]


def read_all(reader: EventReader | EventFile, size: int = 4096) -> bytes:
    found = b""
    while True:
        more = (
            reader.read(size) if isinstance(reader, EventReader) else reader.read(len(found), size)
        )
        if not more:
            return found
        found += more


def test_a_line_says_everything() -> None:
    log = EventLog()
    log.tell(EventKind.REFUSED, 17, "no\n such  thing", b"d/\xff\n", conflict=3)
    line = log.read(0, 1000)
    assert line.count(b"\n") == 1
    assert line.isascii()
    assert json.loads(line) == {
        "seq": 1,
        "at_ns": 17,
        "kind": "refused",
        "path": "d/\udcff\n",
        "text": "no such thing",
        "conflict": 3,
    }


def test_long_texts_are_cut() -> None:
    log = EventLog()
    log.tell(EventKind.MODE, 0, "x" * 100_000)
    assert log.end < 2000


@given(
    st.integers(1, 20),
    st.lists(st.one_of(st.integers(1, 30), st.integers(-400, -1)), max_size=40),
)
def test_no_event_is_lost_without_a_word(most: int, steps: list[int]) -> None:
    """Any sequence of so many events told (positive) and so many bytes read (negative)."""
    log = EventLog(most)
    reader, file = EventReader(log), EventFile(log)
    read, through_file = b"", b""
    for step in steps:
        if step > 0:
            for _ in range(step):
                log.tell(EventKind.MODE, 0, "something happened")
        else:
            read += reader.read(-step)
            through_file += file.read(len(through_file), -step)
    read += read_all(reader)
    while more := file.read(len(through_file), 4096):
        through_file += more
    assert read == through_file
    seen = missed = 0
    for line in read.splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue  # begun, and dropped before it was read on: it counts as missed
        if event["kind"] == "missed":
            missed += event["missed"]
        else:
            seen += 1
            assert event["seq"] == seen + missed
    assert seen + missed == log.last_seq
    assert log.dropped == max(0, log.last_seq - most)


def test_whoever_comes_late_is_told_first_what_is_not_kept() -> None:
    log = filled(50, most=10)
    found = parsed(read_all(EventReader(log)))
    assert [event["kind"] for event in found] == ["missed"] + ["mode"] * 10
    assert (found[0]["missed"], found[0]["seq"]) == (40, 40)
    assert [event["seq"] for event in found[1:]] == list(range(41, 51))


def test_one_who_wants_the_new_only() -> None:
    log = filled(5)
    reader = EventReader.of_new(log)
    assert not reader.ready
    assert reader.read(1000) == b""
    log.tell(EventKind.MODE, 0, "new")
    assert reader.ready
    assert [event["seq"] for event in parsed(reader.read(1000))] == [6]


def test_the_bound_in_bytes() -> None:
    log = filled(1000, most_bytes=5000)
    assert log.end - log.start <= 5000
    assert parsed(read_all(EventReader(log)))[-1]["seq"] == 1000


def test_reads_are_whole_lines_where_one_fits() -> None:
    log = filled(30)
    reader = EventReader(log)
    while part := reader.read(300):
        assert part.endswith(b"\n")


def test_looking_backwards_from_the_end_as_tail_does() -> None:
    log = filled(30, most=10)
    file = EventFile(log)
    whole = log.read(log.start, 1 << 20)
    assert file.read(log.end - 100, 100) == whole[-100:]
    assert file.read(log.end, 100) == b""
    assert file.read(log.start - 50, 100) == b"\n" * 50 + whole[:50]
    assert file.read(0, 20) == b"\n" * 20, "what is not kept, for one who jumps there"


def test_going_on_after_a_jump() -> None:
    log = filled(5)
    file = EventFile(log)
    end = log.end
    assert file.read(end, 100) == b""
    assert not file.ready
    log.tell(EventKind.MODE, 0, "new")
    assert file.ready
    assert parsed(file.read(end, 1000))[0]["seq"] == 6


def test_sparing() -> None:
    sparing = Sparing(2, 10)
    told = [sparing.admit(now) for now in (0, 1, 2, 3, 9, 10, 11, 12, 25)]
    assert told == [0, 0, None, None, None, 3, 0, None, 1]
