"""How long what was seen on the server is believed, by awayfs and the kernel together."""

from __future__ import annotations

import os
import time
from typing import Any

from tests.harness import mounted, needs_fuse

pytestmark = needs_fuse

FRESH_S = 3.0


def test_a_look_late_in_the_fresh_time_does_not_make_it_longer(tmp_path: Any) -> None:
    """What the kernel learns when an observation is almost too old, it must not keep that long."""
    with mounted("dir", str(tmp_path), f"fresh={FRESH_S}") as client:
        root = client.server.root
        with open(f"{root}/file", "w"):
            pass
        os.chmod(f"{root}/file", 0o600)
        assert os.listdir(client.mountpoint) == ["file"]
        listed = time.monotonic()
        os.chmod(f"{root}/file", 0o640)
        with open(f"{root}/late", "w"):
            pass
        time.sleep(FRESH_S * 0.8)
        asked = (os.path.exists(client.path("late")), os.stat(client.path("file")).st_mode & 0o777)
        in_time = time.monotonic() - listed < FRESH_S
        assert asked == (False, 0o600) or not in_time, "believed without asking"
        time.sleep(max(0.0, listed + FRESH_S + 0.1 - time.monotonic()))
        assert os.path.exists(client.path("late"))
        assert os.stat(client.path("file")).st_mode & 0o777 == 0o640
