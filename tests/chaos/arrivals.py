"""The target's own log of arrivals held against the tables: a judge that uses none of our code.

It reads the database with plain SQL and believes neither the API nor the repositories.
"""

from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.support.homes import Home
from tests.support.raw_server import Request

WAITS = ("queued", "retrying")
# After these, and after an answer that is no success, another attempt may follow.
FOLLOWED = ("lost", "interrupted", "timeout", "connect_error", "protocol_error")
Sent = tuple[str, int]
Ask = Callable[[str], Awaitable[Sequence[Mapping[str, Any]]]]


@dataclass(slots=True, kw_only=True)
class Row:
    """An execution as its table has it, with the outcome of each attempt and its HTTP status."""

    id: str
    job_id: str
    cause: str
    clock_epoch: int
    scheduled_us: int
    until_us: int | None
    instant_count: int
    status: str
    reason: str | None
    attempts: int
    next_attempt_us: int | None
    outcomes: list[tuple[str | None, int | None]] = field(default_factory=list)


def read_rows(home: Home) -> list[Row]:
    """Read all executions, oldest first, with their attempts."""
    earlier: dict[str, list[tuple[str | None, int | None]]] = defaultdict(list)
    with home.open_sql() as sql:
        for execution_id, number, outcome, http_status in sql.rows(
            "SELECT execution_id, number, outcome, http_status FROM attempts ORDER BY number"
        ):
            earlier[execution_id].append((outcome, http_status))
            assert len(earlier[execution_id]) == number, "attempts are numbered without a gap"
        found = sql.rows(
            "SELECT id, job_id, cause, clock_epoch, scheduled_us, until_us, instant_count, status,"
            " reason, attempts, next_attempt_us, outcome, http_status FROM executions ORDER BY seq"
        )
    rows = []
    for *values, outcome, http_status in found:
        names = list(Row.__dataclass_fields__)
        row = Row(**dict(zip(names, values, strict=False)))
        row.outcomes = earlier[row.id]
        if row.attempts > len(row.outcomes):
            row.outcomes.append((outcome, http_status))
        rows.append(row)
    return rows


async def ask_rows(ask: Ask) -> list[Row]:
    """Read the same from a server, by a function that runs a statement of SQL."""
    earlier: dict[str, list[tuple[str | None, int | None]]] = defaultdict(list)
    for made in await ask("SELECT * FROM attempts ORDER BY number"):
        earlier[made["execution_id"]].append((made["outcome"], made["http_status"]))
        assert len(earlier[made["execution_id"]]) == made["number"]
    names = [name for name in Row.__dataclass_fields__ if name != "outcomes"]
    rows = []
    for found in await ask("SELECT * FROM executions ORDER BY seq"):
        row = Row(**{name: found[name] for name in names}, outcomes=earlier[found["id"]])
        if row.attempts > len(row.outcomes):
            row.outcomes.append((found["outcome"], found["http_status"]))
        rows.append(row)
    return rows


def whole(requests: Iterable[Request]) -> Counter[Sent]:
    """Count what arrived: execution and attempt number."""
    return Counter(
        (request.headers["webhook-id"], int(request.headers["x-scheduler-attempt"]))
        for request in requests
    )


def find_contradictions(rows: Iterable[Row], sent: Counter[Sent]) -> list[str]:
    """Hold the arrivals against the rows; an empty list is what is wanted.

    Each arrival belongs to an attempt of a row, and came once. What the ledger calls answered did
    arrive, with that answer. More than one arrival of an execution is told by its attempts.
    """
    found = []
    made: set[Sent] = set()
    for row in rows:
        made |= {(row.id, number) for number in range(1, row.attempts + 1)}
        found += _unexplained(row)
        found += _not_as_sent(row, sent)
    for (execution_id, number), count in sent.items():
        if (execution_id, number) not in made:
            found.append(f"{execution_id}: arrival {number} without an attempt")
        if count > 1:
            found.append(f"{execution_id}: attempt {number} arrived {count} times")
    return found


def _not_as_sent(row: Row, sent: Counter[Sent]) -> list[str]:
    """Tell which attempts of a row cannot have been as it says."""
    found = []
    if len(row.outcomes) != row.attempts:
        found.append(f"{row.id}: {row.attempts} attempts, but {row.outcomes}")
    for number, (outcome, http_status) in enumerate(row.outcomes, start=1):
        if outcome == "response" and not sent[row.id, number]:
            found.append(f"{row.id}: attempt {number} was answered and never arrived")
        failed = outcome == "response" and http_status is not None and http_status >= 300
        if number < row.attempts and not failed and outcome not in FOLLOWED:
            found.append(f"{row.id}: sent again after attempt {number}: {outcome}")
    return found


def _unexplained(row: Row) -> list[str]:
    """Tell what a row leaves open."""
    if row.status in (*WAITS, "running", "completed"):
        good = row.status != "completed" or row.outcomes[-1][0] == "response"
    else:
        good = row.reason is not None
    return [] if good else [f"{row.id}: {row.status} without an explanation"]


def duplicates(sent: Counter[Sent]) -> int:
    """Count the arrivals beyond the first of each execution."""
    per_execution: Counter[str] = Counter()
    for (execution_id, _), count in sent.items():
        per_execution[execution_id] += count
    return sum(count - 1 for count in per_execution.values())


def find_gaps(
    rows: Iterable[Row], first: Mapping[str, int], *, period_us: int, until_us: int
) -> list[str]:
    """Tell which jobs have not one row for each due instant; an empty list is what is wanted.

    ``first`` names each job's first instant. Up to ``until_us`` none may be missing; later ones may
    be there, too, without a gap.
    """
    of_job: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        of_job[row.job_id].append(row)
    gaps = []
    for job_id, begin in first.items():
        found = instants_of(of_job[job_id], period_us=period_us)
        wanted = max(len(found), (until_us - begin) // period_us + 1)
        if found != [begin + n * period_us for n in range(wanted)]:
            gaps.append(f"{job_id}: {len(found)} instants, {wanted} wanted")
    return gaps


def instants_of(rows: Iterable[Row], *, period_us: int) -> list[int]:
    """List the due instants that a job's rows stand for, in order."""
    found: list[int] = []
    for row in rows:
        if row.cause in ("schedule", "catch_up"):
            found += [row.scheduled_us + n * period_us for n in range(row.instant_count)]
            assert row.until_us is None or row.until_us == found[-1]
    return sorted(found)
