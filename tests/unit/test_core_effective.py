"""Which setting counts where: the order of places, patterns, and what excludes each other."""

from __future__ import annotations

import tomllib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from awayfs.core.effective import Layer, Place, cost, in_order, left_out, patterns_at, resolve
from awayfs.core.merge_rules import fits_or_below, matches
from awayfs.core.setting_layers import MOST_COMPLAINTS, Source, layers_of
from awayfs.core.setting_table import (
    INDEXERS,
    MOST_PATTERNS,
    TABLE,
    contradiction,
    out_of_order,
    size,
)
from awayfs.core.settings import settings_of

CONFIG = """
fresh = 9
[[directory]]
path = "*.iso"
never-cache = true
[volume."v"]
fresh = 5
[[volume."v".directory]]
path = "/media"
fresh = 60
cull = false
[server."host"]
fresh = 7
"""


def config(text: str) -> list[Layer]:
    return list(settings_of(tomllib.loads(text), "c", ("v",), "host", size).layers)


def value(name: str, path: bytes, layers: list[Layer]) -> tuple[object, Place]:
    found = resolve(name, path, in_order(layers))
    return found.value, found.place


def test_the_order_of_places() -> None:
    layers = config(CONFIG)
    share = Layer(Place.SHARE, "s", {"fresh": 1.0}, b"media")
    option = Layer(Place.OPTION, "-o", {"fresh": 2.0})
    xattr = Layer(Place.XATTR, "x", {"fresh": 0.0}, b"media/a")
    assert value("fresh", b"f", []) == (3.0, Place.DEFAULT)
    assert value("fresh", b"media/f", [share]) == (1.0, Place.SHARE)
    assert value("fresh", b"medial/f", [share]) == (3.0, Place.DEFAULT)
    assert value("fresh", b"f", [share, *layers]) == (5.0, Place.VOLUME)
    assert value("fresh", b"f", [option, *layers]) == (2.0, Place.OPTION)
    assert value("fresh", b"media/f", [option, *layers]) == (60.0, Place.DIRECTORY)
    assert value("fresh", b"media/a/b", [option, *layers, xattr]) == (0.0, Place.XATTR)
    only_server = [one for one in layers if one.place is Place.SERVER]
    assert value("fresh", b"f", only_server) == (7.0, Place.SERVER)


def test_the_nearest_directory_and_the_first_table() -> None:
    shares = [Layer(Place.SHARE, str(d), {"fresh": float(len(d))}, d) for d in (b"", b"a/b", b"a")]
    assert [value("fresh", p, shares)[0] for p in (b"x", b"a/x", b"a/b", b"a/b/c/d")] == [
        0,
        1,
        3,
        3,
    ]
    text = '[[directory]]\npath="*.a"\npin=1\n[[directory]]\npath=["x.a", "d/"]\npin=2'
    layers = config(text)
    assert value("pin", b"x.a", layers)[0] == 1
    assert value("pin", b"q/d/e", layers)[0] is None and value("pin", b"d/e", layers)[0] == 2


@pytest.mark.parametrize(
    ("pattern", "path", "fits"),
    [
        ("build", b"a/build/x/y", True),
        ("/build", b"a/build/x", False),
        ("/build", b"build/x", True),
        ("/a/b", b"a/b/c", True),
        ("a/*.o", b"a/x.o", True),
        ("*.o", b"a/b\xff.o", True),
        ("*.o", b"", False),
    ],
)
def test_what_a_pattern_is_about(pattern: str, path: bytes, fits: bool) -> None:
    layers = config(f'[[directory]]\npath="{pattern}"\npin = true')
    assert (value("pin", path, layers)[0] == 100) is fits


def test_a_pin_and_never_cache_exclude_each_other() -> None:
    pinned = Layer(Place.XATTR, "x", {"pin": 5}, b"a")
    never = Layer(Place.TOP, "c", {"never-cache": True})
    nearer = Layer(Place.XATTR, "y", {"never-cache": True}, b"a/b")
    layers = [never, pinned, nearer]
    assert value("pin", b"a/x", layers)[0] == 5 and value("never-cache", b"a/x", layers)[0] is False
    assert value("pin", b"a/b/x", layers)[0] is None and value("never-cache", b"a/b/x", layers)[0]
    assert value("never-cache", b"z", layers)[0] is True


PLACES = st.sampled_from([place for place in Place if place is not Place.DEFAULT])
LAYERS = st.lists(
    st.builds(
        Layer,
        PLACES,
        st.just("w"),
        st.dictionaries(st.sampled_from(["pin", "never-cache", "fresh"]), st.integers(0, 3)),
        st.sampled_from([b"", b"a", b"a/b", b"c"]),
        st.sampled_from(["", "*", "b", "a/**"]),
    ),
    max_size=8,
)
PATHS = st.sampled_from([b"", b"a", b"a/b", b"a/b/c", b"c/b"])


@example([Layer(Place.XATTR, "w", {"pin": 0}), Layer(Place.TOP, "w", {"never-cache": True})], b"")
@given(LAYERS, PATHS)
def test_no_path_is_both_pinned_and_never_cached(layers: list[Layer], path: bytes) -> None:
    layers = in_order(layers)
    pin, never = resolve("pin", path, layers), resolve("never-cache", path, layers)
    both = [
        one for one in layers if one.values.get("pin") is not None and one.values.get("never-cache")
    ]
    assert both or not (pin.value is not None and never.value not in (False, 0, None))


@given(LAYERS, PATHS)
def test_the_strongest_that_speaks_wins(layers: list[Layer], path: bytes) -> None:
    found = resolve("fresh", path, in_order(layers))
    speaking = [one for one in layers if "fresh" in one.values and not one.pattern and not one.root]
    assert all(found.place <= one.place for one in speaking)


@pytest.mark.parametrize(
    "pattern", ["b", "*", "./a", "a/b", "a/**", "**/c", "a*/?", "[ab]/c*", "**"]
)
@pytest.mark.parametrize("path", ["a", "b", "a/b", "a/b/c", "ab/c/d", "x/a/b", "c/x", ""])
def test_what_is_below_fits_as_any_directory_above_it_does(pattern: str, path: str) -> None:
    parts = path.split("/") if path else []
    above = ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]
    assert fits_or_below(pattern, path) == any(matches(pattern, one) for one in above)


def test_a_file_on_the_share_has_no_more_patterns_than_there_is_time_for() -> None:
    """64 KiB of patterns and one deep path held the event loop for twenty seconds."""
    named = ", ".join(f'"**/*{number}*z"' for number in range(200))
    text = f"[[directory]]\npin = 1\npath = [{named}]\n" * 9
    source = Source(".awayfs.toml", share=True)
    layers = layers_of(tomllib.loads(text), source, Place.SHARE, "")
    assert sum(map(cost, layers)) == MOST_PATTERNS
    assert "beyond 200 patterns" in source.complaints[0]
    left_out_all = "\n".join(
        f"[[directory]]\npath = ['a', 'b', 'c']\nleave-out = [{named}]" for _ in range(9)
    )
    source = Source(".awayfs.toml", share=True)
    layers = layers_of(tomllib.loads(left_out_all), source, Place.SHARE, "")
    assert sum(map(cost, layers)) <= MOST_PATTERNS
    source = Source(".awayfs.toml", share=True)
    layers_of({"directory": [{"path": "*", f"no{n}": 1} for n in range(5000)]}, source, *_SHARE)
    assert len(source.complaints) == MOST_COMPLAINTS


_SHARE = (Place.SHARE, "")


def test_patterns_add_up() -> None:
    layers = in_order(
        [
            Layer(Place.TOP, "top", {"leave-out": ("*.o",)}),
            Layer(Place.SHARE, "share", {"leave-out": ("./cache",)}, b"a"),
        ]
    )
    assert {one.pattern for one in patterns_at(b"a/x", layers)} == {"*.o", "./cache"}
    assert left_out(b"a/cache/x/y", layers) is not None and left_out(b"cache/x", layers) is None
    found = left_out(b"b/c.o", layers)
    assert found is not None and found.where == "top"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("fresh = -1", "fresh: is a number of seconds"),
        ("cache-size = -5", "cache-size: is a size such as"),
        ("cache-size = true", "cache-size: is a size such as"),
        ("brun = 200", "brun: is a percentage"),
        ("pin = 2000", "pin: is a priority"),
        ("cull = 'perhaps'", "cull: is on or off"),
        ("leave-out = [1]", "leave-out: is a pattern"),
        ("leave-out = ['[b-a]']", "leave-out: is a pattern"),
        ("indexers = [3]", "indexers: is a list of process names"),
        ("directory = 1", "write [[directory]]"),
        ("[[directory]]\npin = 1", 'has no path = "PATTERN"'),
        ("[[directory]]\npath = '/'\npin = 1", "path is a pattern"),
        ("[[directory]]\npath = 'a'\ncolour = 1\npin = 1", "no setting 'colour'"),
        ("[[directory]]\npath = 'a'\ncache-size = '1G'\npin = 1", "for a whole volume"),
        ("[[directory]]\npath = 'a'\npin = 1\nnever-cache = true", "exclude each other"),
        ("never-cache = true\ncull = false", "exclude each other"),
    ],
)
def test_what_is_wrong_is_left_out_and_said(text: str, said: str) -> None:
    found = settings_of(tomllib.loads(text), "c", (), "", size)
    assert len(found.complaints) == 1 and said in found.complaints[0]
    assert not any({"cull", "never-cache"} & one.values.keys() for one in found.layers)


def test_a_share_may_not_set_what_is_not_its_own() -> None:
    source = Source("a/.awayfs.toml", share=True, root=b"a")
    table = tomllib.loads(
        "cache-size = '1G'\nfresh = 1\n[[directory]]\npath='x'\nindexers=[]\npin=1"
    )
    layers = layers_of(table, source, Place.SHARE, "")
    assert [one.values for one in layers] == [{"pin": 1}, {"fresh": 1.0}]
    assert all(one.place is Place.SHARE and one.root == b"a" for one in layers)
    assert len(source.complaints) == 2


def test_names_of_processes_are_as_the_kernel_cuts_them() -> None:
    assert all(len(name.encode()) <= 15 for name in INDEXERS)
    assert TABLE["indexers"].read(["a-very-long-process-name"]) == ("a-very-long-pro",)
    assert TABLE["indexers"].read(False) == () and TABLE["indexers"].read("on") == INDEXERS


def test_watermarks_and_contradictions() -> None:
    marks = {
        name: TABLE[name].default for name in ("brun", "bcull", "bstop", "frun", "fcull", "fstop")
    }
    assert out_of_order(marks) is None
    assert "bstop=5" in str(out_of_order({**marks, "bstop": 5.0}))
    assert contradiction({"never-cache": True, "pin": None}) is None
