"""The tables, their constraints and indexes, for SQLite and PostgreSQL alike.

Instants are integer microseconds UTC (``*_us``), never naive. What may never happen is refused here
by constraints, and by the triggers that the migrations add: what an execution or a job never turns
into (migration 0004), a row that ended and changes, a job's cursor that moves back within a clock
epoch. May import SQLAlchemy only.
"""

import sqlalchemy as sa

metadata = sa.MetaData(
    naming_convention={
        "ix": "%(table_name)s_%(column_0_N_name)s",
        "uq": "%(table_name)s_%(column_0_N_name)s_key",
        "ck": "%(table_name)s_%(constraint_name)s",
        "fk": "%(table_name)s_%(column_0_N_name)s_fkey",
        "pk": "%(table_name)s_pkey",
    }
)

# SQLite's STRICT tables know INTEGER only (it holds 64 bits); PostgreSQL needs BIGINT said.
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

_FINAL = "('completed','failed','cancelled','unknown','skipped','missed')"
_DUE_CAUSES = "cause IN ('schedule','catch_up')"
_WAITING = "status IN ('queued','retrying')"
_OPEN = "status IN ('queued','running','retrying')"
_NOT_COMPLETED = "status IN ('failed','cancelled','unknown','skipped','missed')"
_IDLE = "next_run_us IS NULL AND state <> 'deleted'"
_HOLDS_SLOT = "slot_host IS NOT NULL"


jobs = sa.Table(
    "jobs",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    # Grows with every change of definition or state; each tick's advance is conditional on it.
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("state_reason", sa.Text),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("schedule", sa.Text, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("delivery", sa.Text, nullable=False),
    # host:port of the target, the key of the per-host limit.
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("anchor_us", _BIG, nullable=False),
    sa.Column("clock_epoch", sa.Integer, nullable=False),
    # Every due instant up to the cursor has its ledger row; beyond it none has.
    sa.Column("cursor_us", _BIG, nullable=False),
    sa.Column("next_run_us", _BIG),
    sa.Column("execution_count", _BIG, nullable=False),
    # Up to here retention may have removed rows of due instants; null: it has removed none.
    sa.Column("pruned_us", _BIG),
    sa.Column("created_us", _BIG, nullable=False),
    sa.Column("updated_us", _BIG, nullable=False),
    sa.CheckConstraint("revision >= 1", name="revision"),
    sa.CheckConstraint(
        "state IN ('active','paused','finished','broken','deleted')",
        name="state",
    ),
    sa.CheckConstraint("state = 'active' OR next_run_us IS NULL", name="idle_has_no_next"),
    sa.CheckConstraint("next_run_us IS NULL OR next_run_us > cursor_us", name="next_after_cursor"),
    # The two halves of the list of jobs, in its order: those with a next run time, and the others.
    sa.Index("jobs_due", "next_run_us", "id", sqlite_where=sa.text("next_run_us IS NOT NULL"),
             postgresql_where=sa.text("next_run_us IS NOT NULL")),
    sa.Index("jobs_idle", "state", "id", sqlite_where=sa.text(_IDLE),
             postgresql_where=sa.text(_IDLE)),
    sqlite_strict=True,
)  # fmt: skip

job_revisions = sa.Table(
    "job_revisions",
    metadata,
    sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id"), primary_key=True),
    sa.Column("revision", sa.Integer, primary_key=True),
    sa.Column("changed_us", _BIG, nullable=False),
    sa.Column("change", sa.Text, nullable=False),
    sa.Column("actor", sa.Text),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("schedule", sa.Text, nullable=False),
    sa.Column("policy", sa.Text, nullable=False),
    sa.Column("delivery", sa.Text, nullable=False),
    sa.Column("host", sa.Text, nullable=False),
    sa.Column("anchor_us", _BIG, nullable=False),
    sa.Column("clock_epoch", sa.Integer, nullable=False),
    # The instants this revision answers for lie after since_us, up to before_us of the next one,
    # or up to the job's cursor. before_us is how far the revision before it has accounted.
    sa.Column("since_us", _BIG, nullable=False),
    sa.Column("before_us", _BIG, nullable=False),
    sa.CheckConstraint(
        "change IN ('created','edited','paused','resumed','deleted','broken','clock_set_back')",
        name="change",
    ),
    sqlite_strict=True,
)

executions = sa.Table(
    "executions",
    metadata,
    sa.Column("seq", _BIG, sa.Identity(), primary_key=True),
    sa.Column("id", sa.Text, nullable=False),
    sa.Column("job_id", sa.Text, sa.ForeignKey("jobs.id"), nullable=False),
    sa.Column("job_revision", sa.Integer, nullable=False),
    sa.Column("clock_epoch", sa.Integer, nullable=False),
    sa.Column("cause", sa.Text, nullable=False),
    sa.Column("scheduled_us", _BIG, nullable=False),
    sa.Column("until_us", _BIG),
    sa.Column("instant_count", _BIG, nullable=False),
    sa.Column("status", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    # 1: at most one running per job (the index below); 0: the job allows more.
    sa.Column("exclusive", sa.Integer, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    # Attempts lost with their process or interrupted by a stop do not count as retries.
    sa.Column("retries", sa.Integer, nullable=False),
    sa.Column("owner", sa.Text),
    sa.Column("fence", _BIG),
    sa.Column("lease_until_us", _BIG),
    sa.Column("next_attempt_us", _BIG),
    # Set while an attempt runs whose job was paused, deleted or cancelled: no attempt follows it.
    sa.Column("stop_reason", sa.Text),
    sa.Column("queued_us", _BIG, nullable=False),
    sa.Column("started_us", _BIG),
    # The latest attempt lives on this row; earlier ones are in the table attempts.
    sa.Column("attempt_started_us", _BIG),
    sa.Column("finished_us", _BIG),
    sa.Column("outcome", sa.Text),
    sa.Column("attempt_reason", sa.Text),
    sa.Column("http_status", sa.Integer),
    sa.Column("response_bytes", _BIG),
    sa.Column("error", sa.Text),
    sa.Column("response_excerpt", sa.Text),
    # While an attempt runs among replicas: the host and port whose slot it takes. One process
    # alone counts in memory and leaves this empty.
    sa.Column("slot_host", sa.Text),
    # Who made the last attempt, once that has ended: ``owner`` names who makes it. Empty while the
    # run waits, lest the next attempt, made by a version that does not write this, get this name.
    sa.Column("sent_by", sa.Text),
    sa.UniqueConstraint("id", name="executions_id_key"),
    sa.CheckConstraint(
        "cause IN ('schedule','catch_up','manual','chain','replay','backfill')",
        name="cause",
    ),
    sa.CheckConstraint(
        "status IN ('queued','running','retrying','completed','failed','cancelled','unknown',"
        "'skipped','missed')",
        name="status",
    ),
    sa.CheckConstraint("exclusive IN (0, 1)", name="exclusive"),
    sa.CheckConstraint("(status = 'running') = (owner IS NOT NULL)", name="owner_runs"),
    sa.CheckConstraint("(status = 'running') = (fence IS NOT NULL)", name="fence_runs"),
    sa.CheckConstraint("(status = 'running') = (lease_until_us IS NOT NULL)", name="lease_runs"),
    sa.CheckConstraint(
        "status <> 'running' OR (attempts >= 1 AND attempt_started_us IS NOT NULL)",
        name="running_has_attempt",
    ),
    sa.CheckConstraint(f"({_WAITING}) = (next_attempt_us IS NOT NULL)", name="waiting_has_time"),
    sa.CheckConstraint(f"(status IN {_FINAL}) = (finished_us IS NOT NULL)", name="final_has_end"),
    # A CHECK that evaluates to NULL passes, hence the IS NOT NULL.
    sa.CheckConstraint(
        "status <> 'completed' OR (attempts >= 1 AND http_status IS NOT NULL"
        " AND http_status BETWEEN 200 AND 299)",
        name="completed_has_2xx",
    ),
    sa.CheckConstraint(
        "status NOT IN ('skipped','missed') OR (attempts = 0 AND reason IS NOT NULL)",
        name="not_run_has_reason",
    ),
    sa.CheckConstraint(
        "status NOT IN ('failed','cancelled','unknown') OR reason IS NOT NULL",
        name="bad_end_has_reason",
    ),
    sa.CheckConstraint(
        "(instant_count = 1 AND until_us IS NULL) OR (instant_count > 1"
        " AND status IN ('skipped','missed') AND until_us IS NOT NULL AND until_us > scheduled_us)",
        name="stretch",
    ),
    sa.Index("executions_job", "job_id", "seq"),
    sa.Index("executions_due", "job_id", "clock_epoch", "scheduled_us", unique=True,
             sqlite_where=sa.text(_DUE_CAUSES), postgresql_where=sa.text(_DUE_CAUSES)),
    sa.Index("executions_stretches", "job_id", "clock_epoch", "scheduled_us", "until_us",
             "instant_count", sqlite_where=sa.text("instant_count > 1"),
             postgresql_where=sa.text("instant_count > 1")),
    sa.Index("executions_scheduled", "scheduled_us", "seq"),
    sa.Index("executions_not_completed", "status", "seq",
             sqlite_where=sa.text(_NOT_COMPLETED), postgresql_where=sa.text(_NOT_COMPLETED)),
    sa.Index("executions_solo", "job_id", unique=True,
             sqlite_where=sa.text("status = 'running' AND exclusive = 1"),
             postgresql_where=sa.text("status = 'running' AND exclusive = 1")),
    sa.Index("executions_open", "job_id", "status",
             sqlite_where=sa.text(_OPEN), postgresql_where=sa.text(_OPEN)),
    sa.Index("executions_ready", "next_attempt_us",
             sqlite_where=sa.text(_WAITING), postgresql_where=sa.text(_WAITING)),
    sa.Index("executions_lease", "lease_until_us",
             sqlite_where=sa.text("status = 'running'"),
             postgresql_where=sa.text("status = 'running'")),
    sa.Index("executions_slots", "slot_host", sqlite_where=sa.text(_HOLDS_SLOT),
             postgresql_where=sa.text(_HOLDS_SLOT)),
    sqlite_strict=True,
)  # fmt: skip

# How many executions of a job came to which end, kept by triggers in the transaction of each end;
# retention does not touch total and instants.
job_totals = sa.Table(
    "job_totals",
    metadata,
    sa.Column("job_id", sa.Text, primary_key=True),
    sa.Column("status", sa.Text, primary_key=True),
    # Empty for none.
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column("cause", sa.Text, primary_key=True),
    sa.Column("total", _BIG, nullable=False),
    sa.Column("instants", _BIG, nullable=False),
    sa.Column("pruned", _BIG, nullable=False),
    sa.CheckConstraint("pruned >= 0 AND pruned <= total", name="pruned"),
    sqlite_strict=True,
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("execution_id", sa.Text, sa.ForeignKey("executions.id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("fence", _BIG, nullable=False),
    sa.Column("started_us", _BIG, nullable=False),
    sa.Column("ended_us", _BIG, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),
    sa.Column("http_status", sa.Integer),
    sa.Column("response_bytes", _BIG),
    sa.Column("error", sa.Text),
    sa.Column("response_excerpt", sa.Text),
    sa.CheckConstraint("number >= 1", name="number"),
    sa.CheckConstraint(
        "outcome IN ('response','connect_error','timeout','protocol_error','too_large','blocked',"
        "'interrupted','lost')",
        name="outcome",
    ),
    sa.CheckConstraint("outcome <> 'response' OR http_status IS NOT NULL", name="response_status"),
    sqlite_strict=True,
)

leadership = sa.Table(
    "leadership",
    metadata,
    # One row, id 1: who ticks, under which term.
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("term", _BIG, nullable=False),
    sa.Column("holder", sa.Text, nullable=False),
    sa.Column("since_us", _BIG, nullable=False),
    sa.Column("beat_us", _BIG, nullable=False),
    sa.CheckConstraint("id = 1", name="one_row"),
    sqlite_strict=True,
)

# What happened to the service itself: what the ledger's gaps are explained by.
service_events = sa.Table(
    "service_events",
    metadata,
    sa.Column("seq", _BIG, sa.Identity(), primary_key=True),
    sa.Column("at_us", _BIG, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    # started: the last sign of life before; clock_set_*: what the clock would have shown.
    sa.Column("since_us", _BIG),
    sa.Column("process", sa.Text, nullable=False),
    sa.CheckConstraint(
        "kind IN ('started','stopped','clock_set_back','clock_set_forward')", name="kind"
    ),
    sa.Index("service_events_at", "at_us"),
    sqlite_strict=True,
)

# Where replicas hold MYSCHEDULER_HOST_STARTS_PER_SECOND together: the instant, by the database's
# clock, from which a host may have its next start. There are no more rows than hosts of revisions.
host_starts = sa.Table(
    "host_starts",
    metadata,
    sa.Column("host", sa.Text, primary_key=True),
    sa.Column("next_us", _BIG, nullable=False),
    sqlite_strict=True,
)

idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("request_hash", sa.Text, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),
    sa.Column("created_us", _BIG, nullable=False),
    sa.Index("idempotency_keys_created", "created_us"),
    sqlite_strict=True,
)
