"""Which programs may use a schema: so that two versions can run beside each other for a while.

A migration only adds, unless it says ``contract = REVISION``: it removes what programs from that
revision on use no more. Whoever migrates a PostgreSQL database notes in it the oldest revision
whose programs may still use it, and an older program that starts on a newer schema asks that note.
With SQLite there is one process, and an older one is refused. Called by ``db/migrate.py``.
"""

import json

import sqlalchemy as sa
import structlog
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

log = structlog.get_logger(__name__)

# A comment: it commits with the schema it speaks of, and a dump keeps it. The table's own is the
# move's (db/move_marker.py).
_READ = "SELECT col_description(to_regclass('alembic_version'), 1)"


def usable_from(script: ScriptDirectory) -> str:
    """Tell the oldest revision whose programs may use the newest schema."""
    revisions = list(script.walk_revisions())
    contracts = [step.module.contract for step in revisions if hasattr(step.module, "contract")]
    oldest: str = contracts[0] if contracts else revisions[-1].revision
    return oldest


def note_schema(connection: Connection, script: ScriptDirectory) -> None:
    """Leave word for older programs, in the transaction that migrated."""
    if connection.dialect.name != "postgresql":
        return
    note = json.dumps({"schema": script.get_current_head(), "usable_from": usable_from(script)})
    connection.execute(sa.text(f"COMMENT ON COLUMN alembic_version.version_num IS '{note}'"))


def is_usable(connection: Connection, script: ScriptDirectory, *, schema: str | None) -> bool:
    """Tell whether this program may use a schema that it does not know."""
    if connection.dialect.name != "postgresql":
        return False
    text = connection.execute(sa.text(_READ)).scalar()
    try:
        note = json.loads(text or "")
        usable = note["schema"] == schema and note["usable_from"] in _known(script)
    except (ValueError, KeyError, TypeError):
        return False
    if usable:
        log.warning("database.newer", schema=schema, known=script.get_current_head())
    return usable


def _known(script: ScriptDirectory) -> set[str]:
    return {step.revision for step in script.walk_revisions()}
