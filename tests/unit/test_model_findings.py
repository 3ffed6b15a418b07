"""What the model found, as the scripts that it shrank the failures to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.model.world import World


@pytest.fixture
def world() -> Iterator[World]:
    """Directories ``d`` and ``e``; files ``a``, ``b``, ``d/a``, ``d/b`` and ``e/a``."""
    world = World()
    for path in ("d", "e", "d/e"):
        world.serve(("mkdir", path))
    for path in ("a", "b", "d/a", "d/b", "e/a", "d/e/a"):
        world.serve(("write", path, "create"))
    try:
        yield world
    finally:
        world.close()


def offline(world: World, who: str, *ops: tuple[object, ...]) -> None:
    """A client works offline."""
    world.client(who).go_offline()
    for op in ops:
        world.act(who, op)
    assert not [line for line in world.log if line.count(": ") > 1], world.log


@pytest.mark.parametrize("decisions", range(3))
def test_what_a_file_displaced_before_it_was_removed_goes_too(world: World, decisions: int) -> None:
    world.rng.seed(decisions)
    offline(world, "a", ("rename", "d/a", "a"), ("unlink", "a"))
    world.serve(("unlink", "d/a"))
    world.converge()
