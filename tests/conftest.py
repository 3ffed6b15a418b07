"""Which tests run one after the other when several run at a time (``make test``)."""

from __future__ import annotations

import re
from typing import Any

import pytest
from xdist.scheduler import LoadScopeScheduling

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
    """Hands out what belongs together as one piece, in the order of the folders."""

    def _split_scope(self, nodeid: str) -> str:
        return together(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Scheduling | None:
    """In place of ``--dist loadgroup``, whose marks are lost with some versions of pytest."""
    return Scheduling(config, log) if config.getvalue("dist") == "loadgroup" else None
