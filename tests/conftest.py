"""Which tests run one after the other when several run at a time (``make test``), and when.

Those that take long begin first, so that none of them is left alone at the end. One half of the
workers goes on with ``acceptance/``, where tests mostly wait, the other half with ``unit/``, where
they compute, until they meet: so there is always something to compute while others wait.
"""

from __future__ import annotations

import gc
import re
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

EACH_FOR_ITSELF = "tests/acceptance/"
"""Tests that take long and have their own mounts: any may run beside any other."""
BUT_FOR = re.compile(
    r"(.*/test_scenarios\.py)::test_scenario(\[\w+-\w+-(?!alone)\w+)"
    r"|(.*/test_real_tools\.py)::\w+(\[\w+)"
    r"|(.*/test_service\.py)"
)
"""Tests that share a mount, or the service manager; those with the same groups stay together."""


def together(nodeid: str) -> str:
    """What a test has in common with those that must run in the same process, one by one."""
    if not nodeid.startswith(EACH_FOR_ITSELF):
        return nodeid.partition("::")[0]
    shared = BUT_FOR.match(nodeid)
    return "".join(filter(None, shared.groups())) if shared else nodeid


class Scheduling(LoadScopeScheduling):
    """Hands out what belongs together as one piece, from both ends of the list of tests."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid)

    def _assign_work_unit(self, node: WorkerController) -> None:
        begins_at_the_end = int(node.gateway.id.removeprefix("gw")) % 2 == 1
        if begins_at_the_end:
            self.workqueue.move_to_end(next(reversed(self.workqueue)), last=False)
        super()._assign_work_unit(node)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """What has a slow test goes to the ends of the list, where workers begin."""
    if not hasattr(config, "workerinput"):
        return  # one process, in the usual order
    slow = {together(item.nodeid) for item in items if item.get_closest_marker("slow")}

    def place(item: pytest.Item) -> int:
        if together(item.nodeid) not in slow:
            return 0
        return -1 if item.nodeid.startswith(EACH_FOR_ITSELF) else 1

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """All tests stay to the end: no later collection of garbage need look at them again."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    """In place of ``--dist loadgroup``, whose marks are lost with some versions of pytest."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadgroup" else None
