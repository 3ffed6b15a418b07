"""``awayfs demo``: the main job on an embedded server, as a transcript to follow.

A share is mounted over SFTP, pinned, and loses its server (which is really killed). Work goes
on, the same file is edited on the server meanwhile, the server returns, and one conflict is
shown and decided. Every command shown is really run; the last step compares both sides byte
by byte. Everything lives in a temporary directory that is removed at the end. Each command
names the demo's own mount, so that others on this machine, dead ones too, are left alone.
"""

from __future__ import annotations

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable

WIDTH = 78
AWAYFS = [sys.executable, "-m", "awayfs"]


class DemoFailed(Exception):
    """A step did not do what it should; the text says which."""


class Demo:
    """One run; ``close`` ends the mount and the server, also after a failure."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.server = os.path.join(base, "server")
        self.share = os.path.join(base, "share")
        self.keys = os.path.join(base, "keys")
        for path in (self.server, self.share, self.keys, self._sub("state"), self._sub("run")):
            os.makedirs(path, mode=0o700)
        self.environment = {
            **os.environ,
            "XDG_STATE_HOME": self._sub("state"),
            "XDG_RUNTIME_DIR": self._sub("run"),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    def run(self) -> None:
        """All steps in order; raises ``DemoFailed``."""
        self._prepare()
        self._mount_and_pin()
        self._cut()
        self._work()
        self._edit_on_server()
        self._come_back()
        self._resolve()
        self._compare()

    def close(self) -> None:
        """Unmount and stop the server."""
        if _is_mounted(self.share):
            subprocess.run(
                [*AWAYFS, "umount", self.share],
                env=self.environment,
                capture_output=True,
                timeout=20,
                check=False,
            )
        if _is_mounted(self.share):
            subprocess.run(["umount", "-l", self.share], capture_output=True, check=False)
        self._kill_server()

    # -- the steps ------------------------------------------------------------------------

    def _prepare(self) -> None:
        title("A server with a share", "an SFTP server on 127.0.0.1, started for this demo")
        write(f"{self.server}/report.txt", "Quarterly report\nSales: to be filled in\n")
        os.mkdir(f"{self.server}/photos")
        for number in range(1, 4):
            with open(f"{self.server}/photos/{number}.jpg", "wb") as file:
                file.write(os.urandom(200_000))
        self._start_server()
        self._show_server("find . -type f | sort")

    def _mount_and_pin(self) -> None:
        title("Mount it, and keep all of it here")
        url = f"sftp://127.0.0.1:{self.port}{self.server}"
        options = f"identity={self.keys}/user_key,known_hosts={self.keys}/known_hosts"
        self._awayfs("mount", url, self.share, "-o", options + f",ssh_config={os.devnull}")
        self._awayfs("pin", self.share)
        self._awayfs("hoard", "--check", self.share)

    def _cut(self) -> None:
        title("Cut the link", "the server is killed; nobody tells awayfs")
        self._kill_server()
        print("  (kill -9 of the server)")
        self._shell("cat report.txt && md5sum photos/*.jpg", "files are still there")
        wait_for(lambda: self._mode() == "disconnected", "awayfs to notice", self._look)
        self._awayfs("status", self.share)

    def _work(self) -> None:
        title("Work goes on")
        self._shell("sed -i 's/to be filled in/12 million/' report.txt", "an edit")
        self._shell("mkdir trip && mv photos/2.jpg trip/beach.jpg && rm photos/3.jpg")
        self._shell("echo 'Buy milk' > todo.txt && ln -s report.txt latest", "new files")
        self._awayfs("journal", "list", "--mount", self.share)

    def _edit_on_server(self) -> None:
        title("Meanwhile, a colleague edits the same file on the server")
        write(f"{self.server}/report.txt", "Quarterly report\nSales: 11 million (draft)\n")
        self._show_server("cat report.txt")

    def _come_back(self) -> None:
        title("The server returns", "awayfs reconnects and sends what was done")
        self._start_server()
        self._awayfs("online", self.share)
        self._awayfs("sync", self.share, "--wait", check=False)
        self._awayfs("conflicts", self.share)

    def _resolve(self) -> None:
        title("Look at the conflict, and decide it")
        self._shell("head .awayfs/conflicts/report.txt/*", "the three variants, side by side")
        self._awayfs("resolve", f"{self.share}/report.txt", "--keep", "both")
        self._awayfs("sync", self.share, "--wait")

    def _compare(self) -> None:
        title("Both sides are equal")
        wait_for(lambda: not differences(self.server, self.share), "both sides to be equal")
        self._show_server("find . ! -name . | sort")
        self._awayfs("umount", self.share)

    # -- means ----------------------------------------------------------------------------

    def _start_server(self) -> None:
        port_file = f"{self.keys}/port"
        if os.path.exists(port_file):
            os.unlink(port_file)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "awayfs.remotes.demo_server", self.keys, str(self.port)],
            stdin=subprocess.DEVNULL,
        )
        wait_for(lambda: os.path.exists(port_file), "the server to start")
        with open(port_file) as file:
            self.port = int(file.read())

    def _kill_server(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def _awayfs(self, *arguments: str, check: bool = True) -> None:
        shown = ["identity=..." if a.startswith("identity=") else a for a in arguments]
        print(f"  $ awayfs {self._short(' '.join(shown))}")
        done = subprocess.run(
            [*AWAYFS, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self._print(done.stdout + done.stderr)
        if check and done.returncode:
            raise DemoFailed(f"awayfs {arguments[0]} failed")

    def _shell(self, command: str, why: str = "") -> None:
        print(f"  share$ {command}" + (f"     # {why}" if why else ""))
        self._in(self.share, command)

    def _show_server(self, command: str) -> None:
        print(f"  server$ {command}")
        self._in(self.server, command)

    def _in(self, directory: str, command: str) -> None:
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=directory,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        self._print(done.stdout + done.stderr)
        if done.returncode:
            raise DemoFailed(f"{command}: failed")

    def _print(self, text: str) -> None:
        for line in self._short(text).splitlines():
            print(f"      {line}")

    def _short(self, text: str) -> str:
        """Without the temporary directory's name, which nobody wants to read."""
        return text.replace(self.share, "share").replace(self.server, "/srv/team")

    def _mode(self) -> str:
        done = subprocess.run(
            [*AWAYFS, "status", self.share],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
        return next((word for word in done.stdout.split() if word == "disconnected"), "")

    def _look(self) -> None:
        """Ask for something that needs the server, as a user's next move would."""
        try:
            os.stat(f"{self.share}/not-there-{time.monotonic_ns()}")
        except OSError:
            pass

    def _sub(self, name: str) -> str:
        return os.path.join(self.base, name)


def title(text: str, more: str = "") -> None:
    """The heading of a step."""
    print(f"\n== {text} {'=' * max(0, WIDTH - len(text) - 4)}")
    if more:
        print(f"   {more}")


def write(path: str, text: str) -> None:
    """Write a whole file."""
    with open(path, "w") as file:
        file.write(text)


def wait_for(check: Callable[[], object], what: str, meanwhile: object = None) -> None:
    """Wait up to 15 s for ``check``, calling ``meanwhile`` between looks."""
    deadline = time.monotonic() + 15
    while not check():
        if time.monotonic() > deadline:
            raise DemoFailed(f"waited in vain for {what}")
        if callable(meanwhile):
            meanwhile()
        time.sleep(0.1)


def differences(left: str, right: str) -> list[str]:
    """Names that are missing or differ in content on either side."""
    found: list[str] = []
    pending = [filecmp.dircmp(left, right, ignore=[], hide=[])]
    while pending:
        compared = pending.pop()
        found += compared.left_only + compared.right_only + compared.funny_files
        _, wrong, errors = filecmp.cmpfiles(
            compared.left, compared.right, compared.common_files, shallow=False
        )
        found += wrong + errors
        pending += compared.subdirs.values()
    return found


def _is_mounted(path: str) -> bool:
    with open("/proc/self/mountinfo") as file:
        return any(line.split()[4] == os.path.realpath(path) for line in file)


def main() -> int:
    """Run the demo; 0 when every step did what it should."""
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        print("awayfs: demo: no access to /dev/fuse; run: modprobe fuse, or see awayfs doctor")
        return 1
    if os.geteuid() != 0 and shutil.which("fusermount3") is None:
        print("awayfs: demo: fusermount3 is missing; run: apt install fuse3")
        return 1
    base = os.path.realpath(tempfile.mkdtemp(prefix="awayfs-demo-"))
    demo = Demo(base)
    started = time.monotonic()
    try:
        demo.run()
    except DemoFailed as error:
        print(f"\nawayfs: demo: {error}; the files are in {base}", file=sys.stderr)
        demo.close()
        return 1
    finally:
        demo.close()
    shutil.rmtree(base, ignore_errors=True)
    print(f"\nDone in {time.monotonic() - started:.0f} seconds; nothing was left behind.")
    return 0


if __name__ == "__main__":
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    raise SystemExit(main())
