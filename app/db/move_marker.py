"""What a move notes in its target: where from, how far it has come, whether it is finished.

The note is the comment of the table ``alembic_version``: it commits with the rows it speaks of, no
table of ours has to exist for it, and a dump keeps it. ``db/migrate.py`` asks it at every start, so
that nothing is served from half a copy.
"""

import json
from dataclasses import asdict, dataclass, field
from enum import StrEnum

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from app.domain.errors import StorageUnavailableError

READ_NOTE = "SELECT obj_description(to_regclass('alembic_version'), 'pg_class')"


class MoveState(StrEnum):
    """How far a move has come."""

    COPYING = "copying"
    FINISHED = "finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveNote:
    """One move into this database; ``copied`` is the last row number of each table begun."""

    source: str
    fingerprint: str
    state: MoveState = MoveState.COPYING
    copied: dict[str, int] = field(default_factory=dict)

    def statement(self) -> str:
        """Write the statement that keeps this note."""
        text = json.dumps({"move": asdict(self)}).replace("'", "''")
        return f"COMMENT ON TABLE alembic_version IS '{text}'"


def read_note(text: str | None) -> MoveNote | None:
    """Read a comment; None if no move wrote it."""
    try:
        values = json.loads(text or "")["move"]
        return MoveNote(**{**values, "state": MoveState(values["state"])})
    except (ValueError, KeyError, TypeError):
        return None


def refuse_half_a_copy(connection: Connection) -> None:
    """Raise ``StorageUnavailableError`` if a move into this PostgreSQL database is unfinished."""
    note = read_note(connection.execute(sa.text(READ_NOTE)).scalar())
    if note is not None and note.state is MoveState.COPYING:
        raise StorageUnavailableError(
            f"The move from {note.source} into this database is not finished; run the same "
            "myscheduler move again, or make the database anew"
        )
