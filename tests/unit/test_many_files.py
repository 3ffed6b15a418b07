"""All that programs have open in a mount is open in its daemon."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import resource
from awayfs.daemon import main
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
main.receive = lambda: print(resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)) or exit()
main.main()
"""


def test_the_daemon_takes_as_many_descriptors_as_it_may_have() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True)
    assert done.stdout == b"True\n"
