"""Records of the journal as rows of its table."""

from __future__ import annotations

from typing import Final

from awayfs.core.records import Record, RecordKind, RecordState
from awayfs.core.types import Attributes
from awayfs.store.db import Row

FIELDS: Final = (
    "kind, node, parent, name, to_parent, to_name, replaced, set_mode, set_uid, set_gid,"
    " set_mtime, set_atime, xattr_name, xattr_value, state, reason, at_ns"
)
KINDS: Final = {str(kind): kind for kind in RecordKind}
STATES: Final = {str(state): state for state in RecordState}


def record_of(row: Row) -> Record:
    """``seq`` and the fields, as a record."""
    mode, uid, gid, mtime_ns, atime_ns = row[8:13]
    return Record(
        seq=row[0],
        kind=KINDS[row[1]],
        node=row[2],
        parent=row[3],
        name=row[4],
        to_parent=row[5],
        to_name=row[6],
        replaced=row[7],
        attributes=Attributes(mode, uid, gid, mtime_ns, atime_ns),
        xattr_name=row[13],
        xattr_value=row[14],
        state=STATES[row[15]],
        reason=row[16],
        at_ns=row[17],
    )


def values_of(r: Record) -> Row:
    """A record's fields, as values of a row; without its seq."""
    a = r.attributes
    names = (r.parent, r.name, r.to_parent, r.to_name, r.replaced)
    attributes = (a.mode, a.uid, a.gid, a.mtime_ns, a.atime_ns)
    rest = (r.xattr_name, r.xattr_value, str(r.state), r.reason, r.at_ns)
    return (str(r.kind), r.node, *names, *attributes, *rest)
