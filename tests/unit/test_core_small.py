"""Small rules: ranges, backoff, brakes, names, conflict tables."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from awayfs.core import safety
from awayfs.core.backoff import CAP_NS, FIRST_NS, delay_ns
from awayfs.core.conflicts import DEFAULT, STEPS, ConflictKind, Resolution, Step, steps
from awayfs.core.naming import conflict_copy_name, is_conflict_copy, original_name
from awayfs.core.types import Entry, Kind, Range
from awayfs.store.ranges import RangeMap, pack, unpack

# --- Ranges ----------------------------------------------------------------------------------

A_RANGE = st.tuples(st.integers(0, 40), st.integers(0, 40)).map(lambda t: Range(min(t), max(t)))


def members(some: list[Range]) -> set[int]:
    return {byte for r in some for byte in range(r.start, r.end)}


def assert_proper(some: list[Range]) -> None:
    assert all(r.start < r.end for r in some)
    assert all(a.end < b.start for a, b in itertools.pairwise(some))


@given(st.lists(A_RANGE), A_RANGE, st.integers(0, 45))
def test_ranges_are_sets_of_bytes(parts: list[Range], other: Range, size: int) -> None:
    built = RangeMap()
    for part in parts:
        if part.start < part.end:
            built.add(part.start, part.end)
    here, there = members(built.ranges()), members([other])
    assert here == members(parts)
    assert built.total() == len(here)
    assert members(built.missing(other.start, other.end)) == there - here
    assert_proper(built.missing(other.start, other.end))
    assert built.covers(other.start, other.end) == (there <= here)
    assert unpack(pack(built.ranges())) == built.ranges()
    assert_proper(built.ranges())
    left = {byte for byte in here if byte < size}
    assert built.truncate(size) == len(here) - len(left)
    assert members(built.ranges()) == left
    assert_proper(built.ranges())


# --- Backoff and brakes ----------------------------------------------------------------------


def test_the_pause_doubles_up_to_the_cap() -> None:
    pauses = [delay_ns(n) for n in range(8)]
    assert pauses == [0] + [min(FIRST_NS * 2**n, CAP_NS) for n in range(7)]


@given(st.integers(0, 10_000), st.floats(0, 1))
def test_the_pause_is_bounded(failures: int, jitter: float) -> None:
    pause = delay_ns(failures, jitter)
    assert pause == delay_ns(failures, jitter)
    assert 0 <= pause <= CAP_NS
    assert (pause == 0) == (failures == 0)


@pytest.mark.parametrize(
    ("gone", "others", "stops"), [(0, 0, False), (1, 0, False), (2, 0, True), (9, 1, False)]
)
def test_an_emptied_root_stops(gone: int, others: int, stops: bool) -> None:
    assert safety.emptied_root(gone, others) is stops


@pytest.mark.parametrize(
    ("known", "gone", "stops"),
    [(20, 20, True), (19, 19, False), (40, 20, False), (40, 21, True), (0, 0, False)],
)
def test_mass_deletion_stops(known: int, gone: int, stops: bool) -> None:
    assert safety.mass_deletion(known, gone) is stops


@pytest.mark.parametrize(
    ("known", "seen", "stops"),
    [(b"a", b"a", False), (b"a", b"b", True), (None, b"b", False), (b"a", None, False)],
)
def test_another_root_stops(known: bytes | None, seen: bytes | None, stops: bool) -> None:
    assert safety.root_replaced(known, seen) is stops


HOUR = 3600 * safety.SECOND_NS


def seen(mtime_ns: int, ctime_ns: int | None = None, file_id: bytes = b"1") -> Entry:
    more = {"token": b"%d" % mtime_ns, "file_id": file_id, "ctime_ns": ctime_ns}
    return Entry(b"x", Kind.FILE, 0o644, 0, 0, 1, mtime_ns, **more)  # type: ignore[arg-type]


NOW = 1000 * HOUR
DAYS = [seen(NOW - back * HOUR) for back in (24, 49, 170)]
PUT_BACK: dict[str, tuple[list[tuple[Entry, Entry]], bool]] = {
    "nothing is known": ([], False),
    "as it was": ([(seen(NOW), seen(NOW))] * 5, False),
    "one change time went back": ([(seen(NOW, NOW), seen(NOW, NOW - HOUR))], True),
    "by a step of a clock": ([(seen(NOW, NOW), seen(NOW, NOW - 30 * safety.SECOND_NS))], False),
    "of another object": ([(seen(NOW, NOW), seen(NOW, NOW - HOUR, b"2"))], False),
    "all modification times went back": ([(seen(NOW), old) for old in DAYS], True),
    "two are too few": ([(seen(NOW), old) for old in DAYS[:2]], False),
    "one stands": ([(seen(NOW), old) for old in DAYS] + [(seen(NOW), seen(NOW))], False),
    "one went on": ([(seen(NOW), old) for old in DAYS] + [(seen(NOW), seen(NOW + 1))], False),
    "all by an hour": ([(seen(NOW + n), seen(NOW + n - HOUR)) for n in range(5)], False),
    "all by an hour, in seconds": (
        [(seen(NOW + n), seen(NOW - HOUR - safety.SECOND_NS)) for n in range(5)],
        False,
    ),
    "all files, into a directory that is new": (
        [(seen(NOW), old) for old in DAYS]
        + [(replace(seen(NOW), kind=Kind.DIRECTORY), replace(seen(NOW + 9), kind=Kind.DIRECTORY))],
        True,
    ),
    "all by the same week": ([(seen(NOW), seen(NOW - 168 * HOUR))] * 5, True),
}


@pytest.mark.parametrize(("witnesses", "stops"), PUT_BACK.values(), ids=PUT_BACK)
def test_a_restored_server_stops(witnesses: list[tuple[Entry, Entry]], stops: bool) -> None:
    assert safety.put_back(witnesses) is stops


@pytest.mark.parametrize(
    ("ours", "servers", "stops"), [(3, None, False), (3, 3, False), (4, 3, False), (3, 4, True)]
)
def test_a_restored_client_stops(ours: int, servers: int | None, stops: bool) -> None:
    assert safety.client_put_back(ours, servers) is stops


# --- Names of conflict copies ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (b"report.odt", b"report (conflict pc 2026-11-22).odt"),
        (b"README", b"README (conflict pc 2026-11-22)"),
        (b".bashrc", b".bashrc (conflict pc 2026-11-22)"),
        (b".config.toml", b".config (conflict pc 2026-11-22).toml"),
        (b"a.tar.gz", b"a (conflict pc 2026-11-22).tar.gz"),
        (b"ends.", b"ends. (conflict pc 2026-11-22)"),
        (b"...", b"... (conflict pc 2026-11-22)"),
        (b"So. It is a sentence", b"So. It is a sentence (conflict pc 2026-11-22)"),
        (b"\xff\xfe.txt", b"\xff\xfe (conflict pc 2026-11-22).txt"),
        (b"x (conflict other 2026-01-02 7).txt", b"x (conflict pc 2026-11-22).txt"),
    ],
)
def test_a_conflict_copy_keeps_the_extension(name: bytes, expected: bytes) -> None:
    assert conflict_copy_name(name, "pc", "2026-11-22") == expected


def test_copies_are_numbered() -> None:
    taken: set[bytes] = set()
    for _ in range(3):
        taken.add(conflict_copy_name(b"f.txt", "pc", "2026-11-22", taken))
    assert taken == {
        b"f (conflict pc 2026-11-22).txt",
        b"f (conflict pc 2026-11-22 2).txt",
        b"f (conflict pc 2026-11-22 3).txt",
    }


@given(
    st.binary(min_size=1, max_size=255).map(lambda b: b.replace(b"/", b"_").replace(b"\0", b"_")),
    st.text(max_size=80),
    st.integers(80, 255),
)
def test_any_name_gets_a_valid_copy_name(name: bytes, host: str, name_max: int) -> None:
    got = conflict_copy_name(name, host, "2026-11-22", name_max=name_max)
    assert 0 < len(got) <= max(name_max, 120)
    assert b"/" not in got and b"\0" not in got
    assert is_conflict_copy(got)
    assert not is_conflict_copy(original_name(got)) or original_name(got) == got


@given(st.text(min_size=60, max_size=120, alphabet="äö漢字🙂a").map(str.encode))
def test_a_shortened_name_has_whole_characters(name: bytes) -> None:
    got = conflict_copy_name(name[:255].decode(errors="ignore").encode(), "pc", "2026-11-22")
    assert got.decode() and len(got) <= 255


# --- Conflict tables -------------------------------------------------------------------------


def test_every_conflict_has_every_resolution() -> None:
    assert set(STEPS) == set(itertools.product(ConflictKind, Resolution))


@pytest.mark.parametrize("kind", ConflictKind)
def test_both_loses_nothing(kind: ConflictKind) -> None:
    """With ``both``, a local content that gives way is copied, renamed or kept first."""
    taken = steps(kind, Resolution.BOTH)
    has_local_content = kind not in (ConflictKind.REMOVE_UPDATE, ConflictKind.ATTRIBUTE)
    if has_local_content and (Step.ADOPT in taken or Step.DROP in taken):
        safe = {Step.COPY_LOCAL, Step.RENAME_LOCAL, Step.SET_ASIDE}
        assert safe & set(taken[:1])


def test_content_beats_deletion() -> None:
    assert DEFAULT[ConflictKind.UPDATE_REMOVE] is Resolution.LOCAL
    assert DEFAULT[ConflictKind.REMOVE_UPDATE] is Resolution.SERVER


def test_a_partial_copy_is_a_conflict_copy() -> None:
    """Whoever makes a copy of it names that after the original, too."""
    name = b"f (partial conflict pc 2026-11-22).txt"
    assert is_conflict_copy(name) and original_name(name) == b"f.txt"
