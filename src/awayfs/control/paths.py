"""Where state and sockets are, and that nobody else can get at them.

$XDG_STATE_HOME/awayfs/            state (default ~/.local/state/awayfs), 0700
    volumes/<volume id>/           a volume: volume.json, daemon.log, the store
    orders/                        who is to be offline: everything, or a server
    run/                           stands in where there is no usable runtime directory
$XDG_RUNTIME_DIR/awayfs/           runtime, 0700
    <volume id>.sock, .json        a mount's control socket, and what it is
    <volume id>.events             its event socket
"""

from __future__ import annotations

import os
import stat

from awayfs.core.errors import StoreError


def state_dir() -> str:
    """The state directory, which need not exist yet."""
    home = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(home):
        home = os.path.expanduser("~/.local/state")
    return os.path.join(home, "awayfs")


def volumes_dir() -> str:
    """The directory of all volumes."""
    return os.path.join(state_dir(), "volumes")


def orders_dir() -> str:
    """The directory of orders that are about more than one volume."""
    return os.path.join(state_dir(), "orders")


def volume_dir(volume: str) -> str:
    """The directory of one volume, by its id."""
    return os.path.join(volumes_dir(), volume)


def log_file(volume: str) -> str:
    """Where the volume's daemon writes its log."""
    return os.path.join(volume_dir(volume), "daemon.log")


def runtime_dir() -> str:
    """The directory for new sockets, which need not exist yet."""
    base = os.environ.get("XDG_RUNTIME_DIR", "")
    return os.path.join(base, "awayfs") if _usable(base) else os.path.join(state_dir(), "run")


def runtime_dirs() -> list[str]:
    """All existing directories where a daemon of ours may have put its socket.

    A daemon started by the system's manager may lack ``$XDG_RUNTIME_DIR`` where the
    command has it, and the other way round, so commands look in every place.
    """
    session = f"/run/user/{os.getuid()}/awayfs"
    found: list[str] = []
    for path in (runtime_dir(), session, os.path.join(state_dir(), "run")):
        if path not in found and os.path.isdir(path):
            check_private(path)
            found.append(path)
    return found


def socket_file(volume: str) -> str:
    """The control socket of a volume's daemon, when one is to be made."""
    return os.path.join(runtime_dir(), volume + ".sock")


def event_socket_file(volume: str) -> str:
    """The event socket of a volume's daemon, when one is to be made."""
    return os.path.join(runtime_dir(), volume + ".events")


def info_file(volume: str) -> str:
    """The description of a volume's mount, when one is to be made."""
    return os.path.join(runtime_dir(), volume + ".json")


def ensure_private(path: str) -> str:
    """Make the directory, 0700, with its parents; raise ``StoreError`` where it is not ours."""
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            pass  # checked below, whoever made it
    except OSError as error:
        raise StoreError(
            f"{path}: cannot be made: {error.strerror}; set XDG_STATE_HOME to a writable place"
        ) from None
    check_private(path)
    return path


def ensure_state() -> str:
    """The state directory with its parts, made and checked."""
    state = ensure_private(state_dir())
    ensure_private(volumes_dir())
    return state


def ensure_runtime() -> str:
    """The runtime directory, made and checked."""
    if runtime_dir().startswith(state_dir() + os.sep):
        ensure_private(state_dir())
    return ensure_private(runtime_dir())


def ensure_volume(volume: str) -> str:
    """A volume's directory, made and checked."""
    ensure_state()
    return ensure_private(volume_dir(volume))


def check_private(path: str) -> None:
    """Raise ``StoreError`` unless it is a directory that only we can enter."""
    try:
        status = os.stat(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be used: {error.strerror}") from None
    if not stat.S_ISDIR(status.st_mode):
        raise StoreError(f"{path}: is not a directory; move it away")
    if status.st_uid != os.geteuid():
        raise StoreError(
            f"{path}: belongs to uid {status.st_uid}, not to uid {os.geteuid()}; "
            "run as that user, or set XDG_STATE_HOME and XDG_RUNTIME_DIR to directories of your own"
        )
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise StoreError(f"{path}: is open to other users (mode {mode:04o}); run: chmod 700 {path}")


def _usable(base: str) -> bool:
    """A runtime base directory must be there, ours and writable, as its standard says."""
    if not os.path.isabs(base):
        return False
    try:
        status = os.stat(base)
    except OSError:
        return False
    return (
        stat.S_ISDIR(status.st_mode)
        and status.st_uid == os.geteuid()
        and os.access(base, os.W_OK | os.X_OK)
    )
