"""The SFTP server of ``awayfs demo``: one directory, one key, loopback only.

    python -m awayfs.remotes.demo_server FOLDER PORT

serves this account's files on 127.0.0.1; FOLDER gets the keys (made at the first start), a
``known_hosts`` and, once the server listens, a file ``port``. PORT 0 takes a free one.
"""

from __future__ import annotations

import asyncio
import os
import sys

import asyncssh


async def serve(folder: str, port: int) -> None:
    """Serve until killed. Whoever has FOLDER's user key can do what this account can."""
    host_key = _key(folder, "host_key")
    user_key = _key(folder, "user_key")
    authorized = asyncssh.import_authorized_keys(user_key.export_public_key().decode())
    server = await asyncssh.listen(
        "127.0.0.1",
        port,
        server_host_keys=[host_key],
        authorized_client_keys=authorized,
        sftp_factory=True,
    )
    port = server.get_port()
    _announce(folder, port, host_key.export_public_key().decode())
    await server.wait_closed()


def _announce(folder: str, port: int, host_key: str) -> None:
    with open(os.path.join(folder, "known_hosts"), "w") as file:
        file.write(f"[127.0.0.1]:{port} {host_key}")
    with open(os.path.join(folder, "port.new"), "w") as file:
        file.write(str(port))
    os.rename(os.path.join(folder, "port.new"), os.path.join(folder, "port"))


def _key(folder: str, name: str) -> asyncssh.SSHKey:
    path = os.path.join(folder, name)
    if not os.path.exists(path):
        key = asyncssh.generate_private_key("ssh-ed25519")
        old = os.umask(0o077)
        try:
            key.write_private_key(path)
        finally:
            os.umask(old)
    return asyncssh.read_private_key(path)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], int(sys.argv[2])))
