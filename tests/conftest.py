"""Which tests run one after the other when several run at a time (``--dist loadgroup``)."""

from __future__ import annotations

import pytest

EACH_FOR_ITSELF = "acceptance"
"""The folder whose tests take long, and have their own mounts: any may run beside any other."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep the tests of a file together, for what they share; the slow ones only on their word."""
    for item in items:
        named = item.get_closest_marker("xdist_group") is not None
        if not named and item.path.parent.name != EACH_FOR_ITSELF:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))
