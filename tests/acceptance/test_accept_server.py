"""A server that is known by something else than before: refused, then accepted on purpose."""

from __future__ import annotations

import os
import shutil

from tests.harness import SftpServer, mounted, needs_fuse

pytestmark = needs_fuse


def write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)


def read(path: str) -> str:
    with open(path) as file:
        return file.read()


def test_new_host_key_needs_a_word(tmp_path: object) -> None:
    with mounted("sftp", str(tmp_path)) as client:
        assert isinstance(client.server, SftpServer)
        os.listdir(client.mountpoint)
        client.server.cut()
        client.offline()
        write(client.path("unsent.txt"), "made while away\n")
        client.server.sshd.new_host_key()
        client.server.sshd.trust()
        client.server.restore()
        assert "--accept-server" in client.fails("online", client.mountpoint)
        assert not os.path.exists(f"{client.server.root}/unsent.txt")
        client.awayfs("online", client.mountpoint, "--accept-server")
        client.sync()
        assert read(f"{client.server.root}/unsent.txt") == "made while away\n"
        client.umount()
        client.mount()
        assert client.status()["mode"] == "connected"


def test_restored_root_needs_a_word(tmp_path: object) -> None:
    with mounted("dir", str(tmp_path)) as client:
        root = client.server.root
        write(f"{root}/same.txt", "as it was\n")
        write(f"{root}/edited.txt", "base\n")
        client.awayfs("pin", client.mountpoint)
        client.offline()
        write(client.path("edited.txt"), "edited while away\n")
        shutil.copytree(root, root + ".restored")
        shutil.rmtree(root)
        os.rename(root + ".restored", root)
        assert "--accept-server" in client.fails("online", client.mountpoint)
        client.awayfs("online", client.mountpoint, "--accept-server")
        client.sync()
        assert client.conflicts() == []
        assert read(f"{root}/edited.txt") == "edited while away\n"
        assert read(client.path("same.txt")) == "as it was\n"
