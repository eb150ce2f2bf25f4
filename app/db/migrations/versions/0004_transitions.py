"""What no execution, attempt, job or term ever becomes: refused whoever writes.

Triggers only, and none of them refuses anything that a program of 0002 or 0003 writes. They name
the columns that they watch, so that a statement that sets none of these pays nothing.
"""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

_OPEN = "('queued','running','retrying')"

# A claim takes what waits, by the next attempt; only the attempt's end, or the claim's withdrawal
# before it began, moves what runs. What waits is ended by a cancellation, or if it is unreadable.
_NO_STEP = """CASE OLD.status
    WHEN 'running' THEN CASE NEW.status
      WHEN 'running' THEN NEW.attempts <> OLD.attempts
        OR NEW.owner <> OLD.owner OR NEW.fence <> OLD.fence
      WHEN 'retrying' THEN NEW.attempts NOT IN (OLD.attempts, OLD.attempts - 1) OR NEW.attempts < 1
      WHEN 'queued' THEN OLD.attempts <> 1 OR NEW.attempts <> 0
      WHEN 'missed' THEN true
      WHEN 'skipped' THEN true
      ELSE NEW.attempts <> OLD.attempts END
    WHEN 'queued' THEN {waiting}
    WHEN 'retrying' THEN {waiting}
    ELSE false END""".format(
    waiting="""CASE NEW.status
      WHEN 'running' THEN NEW.attempts <> OLD.attempts + 1
      WHEN 'cancelled' THEN NEW.attempts <> OLD.attempts
      WHEN 'failed' THEN NEW.attempts <> OLD.attempts OR coalesce(NEW.reason, '') <> 'broken'
      WHEN OLD.status THEN NEW.attempts <> OLD.attempts
      ELSE true END"""
)
_BIRTHMARKS = (
    "seq",
    "id",
    "job_id",
    "job_revision",
    "clock_epoch",
    "cause",
    "scheduled_us",
    "exclusive",
    "queued_us",
)
_OTHER_BIRTHMARK = " OR ".join(f"NEW.{name} <> OLD.{name}" for name in _BIRTHMARKS)
# A deleted job's id may be given to a new job, whose instants are of a later epoch. A tick that
# finishes a job is the one change of state without a revision.
_NO_STATE = """NEW.state <> OLD.state AND (
    (OLD.state = 'deleted' AND (NEW.state <> 'active' OR NEW.clock_epoch <= OLD.clock_epoch))
    OR (NEW.state = 'paused' AND OLD.state <> 'active')
    OR (NEW.revision = OLD.revision AND (OLD.state <> 'active' OR NEW.state <> 'finished')))"""

# Name, event, condition, sentence.
_REFUSALS = (
    (
        "executions_births",
        "INSERT ON executions",
        "NEW.status NOT IN ('queued','skipped','missed') OR NEW.attempts <> 0",
        "an execution is born queued, skipped or missed",
    ),
    (
        "executions_steps",
        "UPDATE OF status, attempts, owner, fence ON executions",
        _NO_STEP,
        "an execution takes no such step",
    ),
    (
        "executions_birthmarks",
        f"UPDATE OF {', '.join(_BIRTHMARKS)} ON executions",
        f"OLD.status IN {_OPEN} AND ({_OTHER_BIRTHMARK})",
        "an execution stays the one it was born as",
    ),
    (
        "jobs_states",
        "UPDATE OF state ON jobs",
        _NO_STATE,
        "a job takes no such step",
    ),
    (
        "jobs_revision_goes_forward",
        "UPDATE OF revision ON jobs",
        "NEW.revision < OLD.revision",
        "a job's revision never goes back",
    ),
    (
        "leadership_term_goes_forward",
        "UPDATE OF term ON leadership",
        "NEW.term < OLD.term",
        "a term never goes back",
    ),
)
_OF_AN_OPEN_ONE = f"SELECT 1 FROM executions WHERE id = OLD.execution_id AND status IN {_OPEN}"  # noqa: S608
_ATTEMPTS_STAY = "an attempt stays while its execution is open"


def _quoted(sentence: str) -> str:
    return "'" + sentence.replace("'", "''") + "'"


_SQLITE_TRIGGERS = (
    *(
        f"""CREATE TRIGGER {name} BEFORE {event} WHEN {condition}
        BEGIN SELECT RAISE(ABORT, {_quoted(sentence)}); END"""
        for name, event, condition, sentence in _REFUSALS
    ),
    f"""CREATE TRIGGER attempts_stay BEFORE DELETE ON attempts WHEN EXISTS ({_OF_AN_OPEN_ONE})
    BEGIN SELECT RAISE(ABORT, {_quoted(_ATTEMPTS_STAY)}); END""",
)

_POSTGRES_TRIGGERS = (
    *(
        f"""CREATE TRIGGER {name} BEFORE {event} FOR EACH ROW
        WHEN ({condition}) EXECUTE FUNCTION refuse_change({_quoted(sentence)})"""
        for name, event, condition, sentence in _REFUSALS
    ),
    # A condition of a trigger may not ask another table.
    f"""CREATE FUNCTION keep_attempt() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
      IF EXISTS ({_OF_AN_OPEN_ONE}) THEN
        RAISE EXCEPTION '{_ATTEMPTS_STAY}' USING ERRCODE = 'integrity_constraint_violation';
      END IF;
      RETURN OLD;
    END $$""",
    """CREATE TRIGGER attempts_stay BEFORE DELETE ON attempts FOR EACH ROW
    EXECUTE FUNCTION keep_attempt()""",
)


def upgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for trigger in _SQLITE_TRIGGERS if is_sqlite else _POSTGRES_TRIGGERS:
        op.execute(trigger)


def downgrade() -> None:
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    tables = {name: event.rpartition(" ")[2] for name, event, *_ in _REFUSALS}
    for name, table in {**tables, "attempts_stay": "attempts"}.items():
        op.execute(f"DROP TRIGGER {name}" + ("" if is_sqlite else f" ON {table}"))
    if not is_sqlite:
        op.execute("DROP FUNCTION keep_attempt")
