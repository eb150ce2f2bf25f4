"""What proves the ledger: spans of revisions, totals, the service's own events, indexes."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None
# Programs of 0001 do not write spans; none of them was released.
contract = "0002"

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_FINAL = "('completed','failed','cancelled','unknown','skipped','missed')"
_NOT_COMPLETED = "status IN ('failed','cancelled','unknown','skipped','missed')"
_IDLE = "next_run_us IS NULL AND state <> 'deleted'"
_CHANGES = "'created','edited','paused','resumed','deleted','broken'"

_COUNT = """INSERT INTO job_totals (job_id, status, reason, cause, total, instants, pruned)
    VALUES (NEW.job_id, NEW.status, coalesce(NEW.reason, ''), NEW.cause, 1, NEW.instant_count, 0)
    ON CONFLICT (job_id, status, reason, cause) DO UPDATE
    SET total = job_totals.total + 1, instants = job_totals.instants + NEW.instant_count;"""

# Instants of the years 1 to 9999, which every calendar here can show.
_INSTANTS = {
    "jobs": ("anchor_us", "cursor_us", "next_run_us", "pruned_us", "created_us", "updated_us"),
    "executions": (
        "scheduled_us",
        "until_us",
        "lease_until_us",
        "next_attempt_us",
        "queued_us",
        "started_us",
        "attempt_started_us",
        "finished_us",
    ),
}
_NO_INSTANT = "an instant lies in the years 1 to 9999"
_KEPT = "a revision of a job is never deleted"


def _outside(table: str) -> str:
    """Say which new values no calendar knows; an absent one is none of them."""
    return " OR ".join(
        f"NEW.{column} NOT BETWEEN -62135596800000000 AND 253402300799999999"
        for column in _INSTANTS[table]
    )


_SQLITE_TRIGGERS = (
    *(
        f"""CREATE TRIGGER {table}_instants_{event.lower()} BEFORE {event} ON {table}
        WHEN {_outside(table)} BEGIN SELECT RAISE(ABORT, '{_NO_INSTANT}'); END"""
        for table in _INSTANTS
        for event in ("INSERT", "UPDATE")
    ),
    f"""CREATE TRIGGER job_revisions_stay BEFORE DELETE ON job_revisions
    BEGIN SELECT RAISE(ABORT, '{_KEPT}'); END""",
    f"""CREATE TRIGGER executions_count_born AFTER INSERT ON executions
    WHEN NEW.status IN {_FINAL} BEGIN {_COUNT} END""",
    f"""CREATE TRIGGER executions_count_ended AFTER UPDATE OF status ON executions
    WHEN NEW.status IN {_FINAL} BEGIN {_COUNT} END""",
)

_POSTGRES_TRIGGERS = (
    *(
        f"""CREATE TRIGGER {table}_instants_{event.lower()} BEFORE {event} ON {table} FOR EACH ROW
        WHEN ({_outside(table)}) EXECUTE FUNCTION refuse_change('{_NO_INSTANT}')"""
        for table in _INSTANTS
        for event in ("INSERT", "UPDATE")
    ),
    f"""CREATE TRIGGER job_revisions_stay BEFORE DELETE ON job_revisions FOR EACH ROW
    EXECUTE FUNCTION refuse_change('{_KEPT}')""",
    f"""CREATE FUNCTION count_execution() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN {_COUNT} RETURN NULL; END $$""",
    f"""CREATE TRIGGER executions_count_born AFTER INSERT ON executions FOR EACH ROW
    WHEN (NEW.status IN {_FINAL}) EXECUTE FUNCTION count_execution()""",
    f"""CREATE TRIGGER executions_count_ended AFTER UPDATE OF status ON executions FOR EACH ROW
    WHEN (NEW.status IN {_FINAL}) EXECUTE FUNCTION count_execution()""",
)


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    op.add_column("jobs", sa.Column("pruned_us", _BIG, nullable=True))
    _rebuild_revisions()
    _create_totals()
    _create_events()
    _create_indexes()
    for trigger in _SQLITE_TRIGGERS if is_sqlite else _POSTGRES_TRIGGERS:
        op.execute(trigger)


def downgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    triggers = {
        "executions_count_born": "executions",
        "executions_count_ended": "executions",
        "job_revisions_stay": "job_revisions",
    }
    for table in _INSTANTS:
        triggers |= {f"{table}_instants_{event}": table for event in ("insert", "update")}
    for trigger, table in triggers.items():
        op.execute(f"DROP TRIGGER {trigger}" + ("" if is_sqlite else f" ON {table}"))
    if not is_sqlite:
        op.execute("DROP FUNCTION count_execution")
    for index in ("executions_stretches", "executions_scheduled", "executions_not_completed"):
        op.drop_index(index, "executions")
    op.drop_index("jobs_idle", "jobs")
    op.drop_index("jobs_due", "jobs")
    _create_due("next_run_us")
    for table in ("service_events", "job_totals"):
        op.drop_table(table)
    # The wider constraint on a revision's change stays: rows may need it.
    op.drop_column("job_revisions", "since_us")
    op.drop_column("job_revisions", "before_us")
    op.drop_column("jobs", "pruned_us")


def _rebuild_revisions() -> None:
    """Copy the revisions into a table with the new columns and the wider constraint.

    What an old row answers for begins when it was written: its job's cursor stood there then.
    """
    op.create_table(
        "job_revisions_new",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("changed_us", _BIG, nullable=False),
        sa.Column("change", sa.Text(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("delivery", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("anchor_us", _BIG, nullable=False),
        sa.Column("clock_epoch", sa.Integer(), nullable=False),
        sa.Column("since_us", _BIG, nullable=False),
        sa.Column("before_us", _BIG, nullable=False),
        sa.CheckConstraint(
            f"change IN ({_CHANGES},'clock_set_back')", name=op.f("job_revisions_change")
        ),
        # Its final names: a constraint's name stays when its table is renamed.
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("job_revisions_job_id_fkey")),
        sa.PrimaryKeyConstraint("job_id", "revision", name=op.f("job_revisions_new_pkey")),
        sqlite_strict=True,
    )
    columns = (
        "job_id, revision, changed_us, change, actor, state, name, schedule, policy, delivery, "
        "host, anchor_us, clock_epoch"
    )
    op.execute(
        f"INSERT INTO job_revisions_new ({columns}, since_us, before_us) "  # noqa: S608
        f"SELECT {columns}, changed_us, changed_us FROM job_revisions"
    )
    op.drop_table("job_revisions")
    op.rename_table("job_revisions_new", "job_revisions")
    if op.get_bind().dialect.name == "postgresql":
        op.execute("ALTER INDEX job_revisions_new_pkey RENAME TO job_revisions_pkey")


def _create_totals() -> None:
    op.create_table(
        "job_totals",
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("total", _BIG, nullable=False),
        sa.Column("instants", _BIG, nullable=False),
        sa.Column("pruned", _BIG, nullable=False),
        sa.CheckConstraint("pruned >= 0 AND pruned <= total", name=op.f("job_totals_pruned")),
        sa.PrimaryKeyConstraint(
            "job_id", "status", "reason", "cause", name=op.f("job_totals_pkey")
        ),
        sqlite_strict=True,
    )
    op.execute(
        "INSERT INTO job_totals (job_id, status, reason, cause, total, instants, pruned) "  # noqa: S608
        "SELECT job_id, status, coalesce(reason, ''), cause, count(*), sum(instant_count), 0 "
        f"FROM executions WHERE status IN {_FINAL} "
        "GROUP BY job_id, status, coalesce(reason, ''), cause"
    )


def _create_events() -> None:
    op.create_table(
        "service_events",
        sa.Column("seq", _BIG, sa.Identity(always=False), nullable=False),
        sa.Column("at_us", _BIG, nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("since_us", _BIG, nullable=True),
        sa.Column("process", sa.Text(), nullable=False),
        sa.CheckConstraint(
            "kind IN ('started','stopped','clock_set_back','clock_set_forward')",
            name=op.f("service_events_kind"),
        ),
        sa.PrimaryKeyConstraint("seq", name=op.f("service_events_pkey")),
        sqlite_strict=True,
    )
    op.create_index("service_events_at", "service_events", ["at_us"], unique=False)


def _create_due(*columns: str) -> None:
    op.create_index(
        "jobs_due",
        "jobs",
        list(columns),
        unique=False,
        sqlite_where=sa.text("next_run_us IS NOT NULL"),
        postgresql_where=sa.text("next_run_us IS NOT NULL"),
    )


def _create_indexes() -> None:
    op.drop_index("jobs_due", "jobs")
    _create_due("next_run_us", "id")
    op.create_index(
        "jobs_idle",
        "jobs",
        ["state", "id"],
        unique=False,
        sqlite_where=sa.text(_IDLE),
        postgresql_where=sa.text(_IDLE),
    )
    op.create_index(
        "executions_stretches",
        "executions",
        ["job_id", "clock_epoch", "scheduled_us", "until_us", "instant_count"],
        unique=False,
        sqlite_where=sa.text("instant_count > 1"),
        postgresql_where=sa.text("instant_count > 1"),
    )
    op.create_index("executions_scheduled", "executions", ["scheduled_us", "seq"], unique=False)
    op.create_index(
        "executions_not_completed",
        "executions",
        ["status", "seq"],
        unique=False,
        sqlite_where=sa.text(_NOT_COMPLETED),
        postgresql_where=sa.text(_NOT_COMPLETED),
    )
