"""Jobs, their revisions, the ledger of executions, attempts, leadership, idempotency keys."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_FINAL = "('completed','failed','cancelled','unknown','skipped','missed')"

_SQLITE_TRIGGERS = (
    f"""CREATE TRIGGER executions_final_is_final BEFORE UPDATE ON executions
    WHEN OLD.status IN {_FINAL}
    BEGIN SELECT RAISE(ABORT, 'an execution that ended never changes'); END""",
    f"""CREATE TRIGGER executions_open_stay BEFORE DELETE ON executions
    WHEN OLD.status NOT IN {_FINAL}
    BEGIN SELECT RAISE(ABORT, 'an execution that has not ended is never deleted'); END""",
    """CREATE TRIGGER attempts_are_final BEFORE UPDATE ON attempts
    BEGIN SELECT RAISE(ABORT, 'an attempt that ended never changes'); END""",
    """CREATE TRIGGER jobs_cursor_goes_forward BEFORE UPDATE OF cursor_us, clock_epoch ON jobs
    WHEN NEW.clock_epoch < OLD.clock_epoch
      OR (NEW.clock_epoch = OLD.clock_epoch AND NEW.cursor_us < OLD.cursor_us)
    BEGIN SELECT RAISE(ABORT, 'a cursor never moves back within its clock epoch'); END""",
)

_POSTGRES_TRIGGERS = (
    """CREATE FUNCTION refuse_change() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION '%', TG_ARGV[0] USING ERRCODE = 'integrity_constraint_violation'; END $$""",
    f"""CREATE TRIGGER executions_final_is_final BEFORE UPDATE ON executions FOR EACH ROW
    WHEN (OLD.status IN {_FINAL})
    EXECUTE FUNCTION refuse_change('an execution that ended never changes')""",
    f"""CREATE TRIGGER executions_open_stay BEFORE DELETE ON executions FOR EACH ROW
    WHEN (OLD.status NOT IN {_FINAL})
    EXECUTE FUNCTION refuse_change('an execution that has not ended is never deleted')""",
    """CREATE TRIGGER attempts_are_final BEFORE UPDATE ON attempts FOR EACH ROW
    EXECUTE FUNCTION refuse_change('an attempt that ended never changes')""",
    """CREATE TRIGGER jobs_cursor_goes_forward BEFORE UPDATE OF cursor_us, clock_epoch ON jobs
    FOR EACH ROW WHEN (NEW.clock_epoch < OLD.clock_epoch
      OR (NEW.clock_epoch = OLD.clock_epoch AND NEW.cursor_us < OLD.cursor_us))
    EXECUTE FUNCTION refuse_change('a cursor never moves back within its clock epoch')""",
)


def upgrade() -> None:
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.Text(), nullable=False),
        sa.Column("answer", sa.Text(), nullable=False),
        sa.Column("created_us", _BIG, nullable=False),
        sa.PrimaryKeyConstraint("key", name=op.f("idempotency_keys_pkey")),
        sqlite_strict=True,
    )
    op.create_index("idempotency_keys_created", "idempotency_keys", ["created_us"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("schedule", sa.Text(), nullable=False),
        sa.Column("policy", sa.Text(), nullable=False),
        sa.Column("delivery", sa.Text(), nullable=False),
        sa.Column("host", sa.Text(), nullable=False),
        sa.Column("anchor_us", _BIG, nullable=False),
        sa.Column("clock_epoch", sa.Integer(), nullable=False),
        sa.Column("cursor_us", _BIG, nullable=False),
        sa.Column("next_run_us", _BIG, nullable=True),
        sa.Column("execution_count", _BIG, nullable=False),
        sa.Column("created_us", _BIG, nullable=False),
        sa.Column("updated_us", _BIG, nullable=False),
        sa.CheckConstraint(
            "state = 'active' OR next_run_us IS NULL", name=op.f("jobs_idle_has_no_next")
        ),
        sa.CheckConstraint(
            "state IN ('active','paused','finished','broken','deleted')", name=op.f("jobs_state")
        ),
        sa.CheckConstraint(
            "next_run_us IS NULL OR next_run_us > cursor_us", name=op.f("jobs_next_after_cursor")
        ),
        sa.CheckConstraint("revision >= 1", name=op.f("jobs_revision")),
        sa.PrimaryKeyConstraint("id", name=op.f("jobs_pkey")),
        sqlite_strict=True,
    )
    op.create_index(
        "jobs_due",
        "jobs",
        ["next_run_us"],
        unique=False,
        sqlite_where=sa.text("next_run_us IS NOT NULL"),
        postgresql_where=sa.text("next_run_us IS NOT NULL"),
    )
    op.create_table(
        "leadership",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("term", _BIG, nullable=False),
        sa.Column("holder", sa.Text(), nullable=False),
        sa.Column("since_us", _BIG, nullable=False),
        sa.Column("beat_us", _BIG, nullable=False),
        sa.CheckConstraint("id = 1", name=op.f("leadership_one_row")),
        sa.PrimaryKeyConstraint("id", name=op.f("leadership_pkey")),
        sqlite_strict=True,
    )
    op.create_table(
        "executions",
        sa.Column("seq", _BIG, sa.Identity(always=False), nullable=False),
        sa.Column("id", sa.Text(), nullable=False),
        sa.Column("job_id", sa.Text(), nullable=False),
        sa.Column("job_revision", sa.Integer(), nullable=False),
        sa.Column("clock_epoch", sa.Integer(), nullable=False),
        sa.Column("cause", sa.Text(), nullable=False),
        sa.Column("scheduled_us", _BIG, nullable=False),
        sa.Column("until_us", _BIG, nullable=True),
        sa.Column("instant_count", _BIG, nullable=False),
        sa.Column("status", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("exclusive", sa.Integer(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("retries", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=True),
        sa.Column("fence", _BIG, nullable=True),
        sa.Column("lease_until_us", _BIG, nullable=True),
        sa.Column("next_attempt_us", _BIG, nullable=True),
        sa.Column("stop_reason", sa.Text(), nullable=True),
        sa.Column("queued_us", _BIG, nullable=False),
        sa.Column("started_us", _BIG, nullable=True),
        sa.Column("attempt_started_us", _BIG, nullable=True),
        sa.Column("finished_us", _BIG, nullable=True),
        sa.Column("outcome", sa.Text(), nullable=True),
        sa.Column("attempt_reason", sa.Text(), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("response_bytes", _BIG, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("response_excerpt", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "(instant_count = 1 AND until_us IS NULL) OR (instant_count > 1 AND status IN ('skipped','missed') AND until_us IS NOT NULL AND until_us > scheduled_us)",
            name=op.f("executions_stretch"),
        ),
        sa.CheckConstraint(
            "(status = 'running') = (fence IS NOT NULL)", name=op.f("executions_fence_runs")
        ),
        sa.CheckConstraint(
            "(status = 'running') = (lease_until_us IS NOT NULL)",
            name=op.f("executions_lease_runs"),
        ),
        sa.CheckConstraint("exclusive IN (0, 1)", name=op.f("executions_exclusive")),
        sa.CheckConstraint(
            "(status = 'running') = (owner IS NOT NULL)", name=op.f("executions_owner_runs")
        ),
        sa.CheckConstraint(
            "(status IN ('completed','failed','cancelled','unknown','skipped','missed')) = (finished_us IS NOT NULL)",
            name=op.f("executions_final_has_end"),
        ),
        sa.CheckConstraint(
            "(status IN ('queued','retrying')) = (next_attempt_us IS NOT NULL)",
            name=op.f("executions_waiting_has_time"),
        ),
        sa.CheckConstraint(
            "cause IN ('schedule','catch_up','manual','chain','replay','backfill')",
            name=op.f("executions_cause"),
        ),
        sa.CheckConstraint(
            "status <> 'completed' OR (attempts >= 1 AND http_status IS NOT NULL AND http_status BETWEEN 200 AND 299)",
            name=op.f("executions_completed_has_2xx"),
        ),
        sa.CheckConstraint(
            "status <> 'running' OR (attempts >= 1 AND attempt_started_us IS NOT NULL)",
            name=op.f("executions_running_has_attempt"),
        ),
        sa.CheckConstraint(
            "status IN ('queued','running','retrying','completed','failed','cancelled','unknown','skipped','missed')",
            name=op.f("executions_status"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('failed','cancelled','unknown') OR reason IS NOT NULL",
            name=op.f("executions_bad_end_has_reason"),
        ),
        sa.CheckConstraint(
            "status NOT IN ('skipped','missed') OR (attempts = 0 AND reason IS NOT NULL)",
            name=op.f("executions_not_run_has_reason"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("executions_job_id_fkey")),
        sa.PrimaryKeyConstraint("seq", name=op.f("executions_pkey")),
        sa.UniqueConstraint("id", name="executions_id_key"),
        sqlite_strict=True,
    )
    op.create_index(
        "executions_due",
        "executions",
        ["job_id", "clock_epoch", "scheduled_us"],
        unique=True,
        sqlite_where=sa.text("cause IN ('schedule','catch_up')"),
        postgresql_where=sa.text("cause IN ('schedule','catch_up')"),
    )
    op.create_index("executions_job", "executions", ["job_id", "seq"], unique=False)
    op.create_index(
        "executions_lease",
        "executions",
        ["lease_until_us"],
        unique=False,
        sqlite_where=sa.text("status = 'running'"),
        postgresql_where=sa.text("status = 'running'"),
    )
    op.create_index(
        "executions_open",
        "executions",
        ["job_id", "status"],
        unique=False,
        sqlite_where=sa.text("status IN ('queued','running','retrying')"),
        postgresql_where=sa.text("status IN ('queued','running','retrying')"),
    )
    op.create_index(
        "executions_ready",
        "executions",
        ["next_attempt_us"],
        unique=False,
        sqlite_where=sa.text("status IN ('queued','retrying')"),
        postgresql_where=sa.text("status IN ('queued','retrying')"),
    )
    op.create_index(
        "executions_solo",
        "executions",
        ["job_id"],
        unique=True,
        sqlite_where=sa.text("status = 'running' AND exclusive = 1"),
        postgresql_where=sa.text("status = 'running' AND exclusive = 1"),
    )
    op.create_table(
        "job_revisions",
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
        sa.CheckConstraint(
            "change IN ('created','edited','paused','resumed','deleted','broken')",
            name=op.f("job_revisions_change"),
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("job_revisions_job_id_fkey")),
        sa.PrimaryKeyConstraint("job_id", "revision", name=op.f("job_revisions_pkey")),
        sqlite_strict=True,
    )
    op.create_table(
        "attempts",
        sa.Column("execution_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("owner", sa.Text(), nullable=False),
        sa.Column("fence", _BIG, nullable=False),
        sa.Column("started_us", _BIG, nullable=False),
        sa.Column("ended_us", _BIG, nullable=False),
        sa.Column("outcome", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("http_status", sa.Integer(), nullable=True),
        sa.Column("response_bytes", _BIG, nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.Column("response_excerpt", sa.Text(), nullable=True),
        sa.CheckConstraint(
            "outcome <> 'response' OR http_status IS NOT NULL",
            name=op.f("attempts_response_status"),
        ),
        sa.CheckConstraint(
            "outcome IN ('response','connect_error','timeout','protocol_error','too_large','blocked','interrupted','lost')",
            name=op.f("attempts_outcome"),
        ),
        sa.CheckConstraint("number >= 1", name=op.f("attempts_number")),
        sa.ForeignKeyConstraint(
            ["execution_id"], ["executions.id"], name=op.f("attempts_execution_id_fkey")
        ),
        sa.PrimaryKeyConstraint("execution_id", "number", name=op.f("attempts_pkey")),
        sqlite_strict=True,
    )
    triggers = _SQLITE_TRIGGERS if op.get_bind().dialect.name == "sqlite" else _POSTGRES_TRIGGERS
    for trigger in triggers:
        op.execute(trigger)


def downgrade() -> None:
    for table in (
        "attempts",
        "job_revisions",
        "executions",
        "leadership",
        "jobs",
        "idempotency_keys",
    ):
        op.drop_table(table)
    if op.get_bind().dialect.name == "postgresql":
        op.execute("DROP FUNCTION refuse_change")
