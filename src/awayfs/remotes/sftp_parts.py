"""The parts of the SFTP adapter, put together for one session."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import Struct

from awayfs.remotes.sftp_by_program import ByProgram
from awayfs.remotes.sftp_capabilities import is_root
from awayfs.remotes.sftp_changes import Changes
from awayfs.remotes.sftp_channel import Channel
from awayfs.remotes.sftp_connection import Session
from awayfs.remotes.sftp_exchange import Exchanger
from awayfs.remotes.sftp_guard import Guarded
from awayfs.remotes.sftp_moves import Moves
from awayfs.remotes.sftp_paths import Paths
from awayfs.remotes.sftp_program import Program
from awayfs.remotes.sftp_revisions import Contents, Revisions
from awayfs.remotes.sftp_settle import Settler
from awayfs.remotes.sftp_staged import Staged
from awayfs.remotes.sftp_stagers import Stagers
from awayfs.remotes.sftp_syncs import DirectorySyncs
from awayfs.remotes.sftp_transfer import Transfer
from awayfs.remotes.sftp_view import View


class Parts(Struct, frozen=True):
    """The adapter's parts for one session."""

    session: Session
    paths: Paths
    view: View
    transfer: Transfer
    stagers: Stagers
    contents: Contents
    changes: Changes
    guarded: Guarded
    staged: Staged
    syncs: DirectorySyncs
    settler: Settler
    exchanger: Exchanger
    by_program: ByProgram

    @property
    def own_uid(self) -> int | None:
        """Of files that we make here, where one was made."""
        made = self.stagers.own_uid
        return self.by_program.program.uid if made is None else made


def assemble(
    session: Session,
    fsid: int | None,
    program: Program,
    client: str,
    tick: Callable[[float], None],
) -> Parts:
    """All parts; ``client`` and ``tick`` as in ``SftpRemote``; ``fsid``: the file system there."""
    quick, bulk, clock = session.quick, session.bulk, session.clock
    paths = Paths(quick)
    paths.fsid = fsid
    view = View(quick, clock, paths, tick, client)

    def transfer_over(channel: Channel) -> Transfer:
        return Transfer(channel, View(channel, clock, paths, tick), clock, tick)

    transfer = transfer_over(bulk)
    stagers = Stagers(session, transfer, transfer_over)
    moves = Moves(quick, view, session.extensions, transfer.digest)
    may_chown = is_root(session)
    contents = Contents()
    revisions = Revisions(quick, view, clock, contents, transfer.digest)
    staged = Staged()
    syncs = DirectorySyncs(bulk)
    guarded = Guarded(quick, view, moves, revisions, may_chown, syncs.sync, paths, staged)
    by_program = ByProgram(
        *(program, view, clock, paths, moves, contents),
        *(may_chown, tick),
    )
    return Parts(
        session=session,
        paths=paths,
        view=view,
        transfer=transfer,
        stagers=stagers,
        contents=contents,
        changes=Changes(quick, view, clock, session.extensions),
        guarded=guarded,
        staged=staged,
        syncs=syncs,
        settler=Settler(view, moves, syncs.sync),
        exchanger=Exchanger(view, moves, syncs.sync, paths),
        by_program=by_program,
    )
