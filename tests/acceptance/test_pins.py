"""What a pin says is what is kept."""

from __future__ import annotations

import errno
import os

import pytest

from tests.harness import mounted, needs_fuse, run

pytestmark = needs_fuse


def test_a_pins_value_is_its_priority(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path)) as client:
        os.mkdir(f"{client.server.root}/d")
        path = client.path("d")
        run("setfattr", "-n", "user.awayfs.pin", "-v", "7", path)
        assert run("getfattr", "--only-values", "-n", "user.awayfs.pin", path) == "7"
        run("setfattr", "-n", "user.awayfs.pin", path)
        assert run("getfattr", "--only-values", "-n", "user.awayfs.pin", path) == "100"
        with pytest.raises(OSError) as refused:
            os.setxattr(path, "user.awayfs.pin", b"high")
        assert refused.value.errno == errno.EINVAL


def test_a_pin_that_can_never_be_true_is_not_kept(tmp_path: object) -> None:
    """It would hold what room there is, and other files could not be read any more."""
    with mounted("dir", str(tmp_path), "cache-size=1M") as client:
        for name, size in (("large", 3 << 20), ("small", 512 << 10)):
            with open(f"{client.server.root}/{name}", "wb") as file:
                file.write(os.urandom(size))
        run("cmp", client.path("large"), f"{client.server.root}/large")
        assert "cache-size" in client.fails("pin", client.path("large"))
        with pytest.raises(OSError) as unpinned:
            os.getxattr(client.path("large"), "user.awayfs.pin")
        assert unpinned.value.errno == errno.ENODATA
        run("cmp", client.path("small"), f"{client.server.root}/small")


def test_a_pin_that_can_be_true_no_more_keeps_no_other_from_it(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path), "cache-size=1M,fresh=0") as client:
        for name in ("a", "b"):
            os.mkdir(f"{client.server.root}/{name}")
            client.awayfs("pin", client.path(name))
        for name, size in (("a/grown", 3 << 20), ("b/small", 1 << 10)):
            with open(f"{client.server.root}/{name}", "wb") as file:
                file.write(os.urandom(size))
        said = client.fails("hoard")
        assert "a: " in said and "cache-size" in said
        client.offline()
        run("cmp", client.path("b/small"), f"{client.server.root}/b/small")
