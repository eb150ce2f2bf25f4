"""Pages of history by any filter: complete, in order, bounded, the same on both databases."""

from dataclasses import replace
from datetime import timedelta
from itertools import chain, product
from typing import Any

import pytest
import sqlalchemy as sa

from app.db.unit_of_work import WriteConnection
from app.domain.clock import to_us
from app.domain.execution import Cause, Execution, ExecutionStatus, Reason
from app.domain.history import STATUSES_WITH_REASON, HistoryCount, HistoryFilter, Position
from app.domain.ids import JobId
from app.models.tables import executions
from app.repositories import history_repository, job_repository, totals_repository
from tests.conformance.builders import JOB, NOW, NOW_US, SECOND, add_job, make_job
from tests.support.births import any_birth
from tests.support.databases import Database, DatabaseKind, Databases, open_database

S = ExecutionStatus
OTHER = JobId("other")
FEW = 180


def ledger_row(number: int, status: ExecutionStatus, **changes: Any) -> dict[str, Any]:
    """Describe a row of the table, whole, in any status."""
    due = changes.pop("due_us", NOW_US + number * 1_000_000)
    row: dict[str, Any] = {
        "id": f"exe_{number}", "job_id": JOB, "job_revision": 1, "clock_epoch": 0,
        "cause": Cause.MANUAL, "scheduled_us": due, "until_us": None, "instant_count": 1,
        "status": status, "reason": Reason.TIMEOUT if status in STATUSES_WITH_REASON else None,
        "exclusive": 0, "attempts": 0, "retries": 0, "owner": None, "fence": None,
        "lease_until_us": None, "next_attempt_us": None, "queued_us": due, "started_us": None,
        "attempt_started_us": None, "finished_us": None, "http_status": None,
    }  # fmt: skip
    match status:
        case S.QUEUED | S.RETRYING:
            row |= {"next_attempt_us": due}
        case S.RUNNING:
            row |= {"owner": "me", "fence": 1, "lease_until_us": due, "attempts": 1,
                    "attempt_started_us": due}  # fmt: skip
        case S.COMPLETED:
            row |= {"attempts": 1, "http_status": 200, "finished_us": due}
        case _:
            row |= {"finished_us": due}
    return {**row, **changes}


def insert(connection: WriteConnection, rows: list[dict[str, Any]]) -> None:
    with any_birth(connection):
        connection.execute(sa.insert(executions), rows)


def mixed_rows() -> list[dict[str, Any]]:
    """Describe rows of two jobs in every status, for several reasons and causes.

    The order of their due instants is not that of their birth.
    """
    reasons = [Reason.TIMEOUT, Reason.STATUS, Reason.OVERLAP]
    rows = []
    for number in range(FEW):
        status = list(S)[number % len(S)]
        changes: dict[str, Any] = {
            "job_id": (JOB, OTHER)[number // 7 % 2],
            "cause": (Cause.MANUAL, Cause.REPLAY)[number // 5 % 2],
            "due_us": NOW_US + (number * 37 % FEW) // 2 * 1_000_000,
        }
        if status in STATUSES_WITH_REASON:
            changes["reason"] = reasons[number // 9 % 3]
        rows.append(ledger_row(number, status, **changes))
    return rows


@pytest.fixture
async def mixed(database: Database) -> Database:
    """Store a ledger in which every filter finds something."""
    await add_job(database)
    await add_job(database, OTHER)
    await database.write(insert, mixed_rows())
    return database


async def read_pages(
    database: Database, wanted: HistoryFilter, limit: int
) -> list[list[Execution]]:
    """Read all pages, each from where the one before it ended."""
    pages: list[list[Execution]] = []
    before: Position | None = None
    while True:
        page = await database.read(
            history_repository.read_history, wanted, limit=limit, before=before
        )
        pages.append(page.executions)
        before = page.next_position
        if before is None:
            return pages


def matches(row: Execution, wanted: HistoryFilter) -> bool:
    """Say what a filter means, one condition after the other."""
    return (
        wanted.job_id in {None, row.job_id}
        and (not wanted.statuses or row.status in wanted.statuses)
        and (not wanted.reasons or row.reason in wanted.reasons)
        and (not wanted.causes or row.cause in wanted.causes)
        and (wanted.since is None or row.scheduled_for >= wanted.since)
        and (wanted.until is None or row.scheduled_for < wanted.until)
    )


STATUS_SETS = [
    set(), {S.COMPLETED}, {S.FAILED}, {S.RUNNING}, {S.FAILED, S.UNKNOWN, S.MISSED},
    {S.QUEUED, S.RETRYING}, {S.SKIPPED, S.RUNNING}, {S.COMPLETED, S.CANCELLED},
]  # fmt: skip
RANGES = [
    {},
    {"since": NOW + 20 * SECOND},
    {"since": NOW + 20 * SECOND, "until": NOW + 60 * SECOND},
    {"until": NOW + 60 * SECOND},
]


async def test_every_filter_finds_what_it_says_in_order(mixed: Database):
    """Pages of every combination of filters hold each match once, newest first."""
    (everything,) = await read_pages(mixed, HistoryFilter(), 1000)
    assert len(everything) == FEW
    combinations = product(
        [None, JOB], STATUS_SETS, [set(), {Reason.STATUS}], [set(), {Cause.REPLAY}], RANGES
    )
    for job_id, statuses, reasons, causes, span in combinations:
        wanted = HistoryFilter(
            job_id=job_id,
            statuses=frozenset(statuses),
            reasons=frozenset(reasons),
            causes=frozenset(causes),
            **span,
        )
        expected = [row for row in everything if matches(row, wanted)]
        if wanted.goes_by_due:
            expected.sort(key=lambda row: (row.scheduled_for, row.sequence), reverse=True)
        pages = await read_pages(mixed, wanted, 9)
        assert list(chain.from_iterable(pages)) == expected, wanted
        assert all(len(page) == 9 for page in pages[:-1]), wanted


async def test_totals_are_those_of_what_matches(mixed: Database):
    """A job's total is exact by status, reason and cause, whether its executions ended or not."""
    (everything,) = await read_pages(mixed, HistoryFilter(), 1000)
    for statuses, reasons, causes in product(
        STATUS_SETS, [set(), {Reason.STATUS}], [set(), {Cause.REPLAY}]
    ):
        wanted = HistoryFilter(
            job_id=JOB,
            statuses=frozenset(statuses),
            reasons=frozenset(reasons),
            causes=frozenset(causes),
        )
        expected = sum(matches(row, wanted) for row in everything)
        assert await mixed.read(totals_repository.count_kept, wanted) == expected, wanted


@pytest.mark.parametrize(
    ("changes", "count"),
    [
        ({}, FEW),
        ({"statuses": frozenset({S.FAILED})}, 20),
        ({"statuses": frozenset({S.FAILED, S.RUNNING})}, 40),
        ({"since": NOW, "until": NOW + 10 * SECOND}, 20),
        ({"statuses": frozenset({S.COMPLETED})}, None),
        ({"causes": frozenset({Cause.MANUAL})}, None),
        ({"since": NOW, "statuses": frozenset({S.FAILED})}, None),
        ({"statuses": frozenset({S.COMPLETED}), "reasons": frozenset({Reason.STATUS})}, 0),
    ],
)
async def test_what_an_index_tells_is_counted(mixed: Database, changes: dict[str, Any], count):
    """Over all jobs, what an index alone can tell is counted, and nothing else is."""
    counted = await mixed.read(history_repository.count_history, HistoryFilter(**changes))
    assert counted == (None if count is None else HistoryCount(exact=count))


@pytest.fixture
async def long(databases: Databases, kind: DatabaseKind):
    """Open a database with 45,000 executions, of which two match a rare filter."""
    url = await databases.shared(kind, "long history", fill_long)
    async with open_database(url) as database:
        yield database


RARE = Cause.BACKFILL
LONG = 45_000


def fill_long(connection: WriteConnection) -> None:
    """Store the job and its long history: rare causes at the very beginning, and at 10,000."""
    job_repository.insert_job(connection, make_job(), actor=None)
    if connection.dialect.name == "postgresql":
        # Counting 45,000 ends of one kind in one transaction takes 20 s; none is asked for here.
        connection.exec_driver_sql("ALTER TABLE executions DISABLE TRIGGER USER")
    insert(connection, [ledger_row(LONG, S.SKIPPED, cause=RARE, due_us=NOW_US - 10**7)])
    for start in range(0, LONG, 5000):
        rows = [
            ledger_row(number, S.FAILED, cause=RARE if number in {3, 10_000} else Cause.MANUAL)
            for number in range(start, start + 5000)
        ]
        insert(connection, rows)
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("ANALYZE")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"job_id": JOB},
        {"statuses": frozenset({S.FAILED})},
        {"since": NOW - SECOND},
        {"job_id": JOB, "until": NOW + timedelta(days=9)},
    ],
    ids=["all", "job", "status", "time", "job and time"],
)
async def test_a_page_examines_so_much_and_goes_on(long: Database, changes: dict[str, Any]):
    """Where little matches, pages end early, empty or not, and lead to all of it."""
    wanted = HistoryFilter(causes=frozenset({RARE}), **changes)
    pages = await read_pages(long, wanted, 50)
    ids = [[row.id for row in page if row.status is S.FAILED] for page in pages]
    assert ids == [[], ["exe_10000"], ["exe_3"]]


async def test_statuses_are_put_together_in_order(long: Database):
    """What one status has below the place that another has not passed waits for its page."""
    statuses = frozenset({S.FAILED, S.SKIPPED})
    pages = await read_pages(long, HistoryFilter(statuses=statuses, causes=frozenset({RARE})), 50)
    found = [row.id for row in chain.from_iterable(pages)]
    assert found == ["exe_10000", "exe_3", f"exe_{LONG}"]


async def test_a_count_ends_at_its_bound(long: Database):
    """More than 10,000 are not counted out."""
    for wanted in (HistoryFilter(), HistoryFilter(statuses=frozenset({S.FAILED}))):
        counted = await long.read(history_repository.count_history, wanted)
        assert counted == HistoryCount(at_least=10_000)


async def test_a_page_goes_on_across_rows_that_are_gone(database: Database):
    """A wide gap in the numbers of rows ends nothing: the page behind it is found at once."""
    await add_job(database)
    rare = ledger_row(1, S.FAILED, cause=RARE)
    await database.write(insert, [{**rare, "seq": 1}])
    await database.write(insert, [{**ledger_row(2, S.FAILED), "seq": 1_000_000}])
    pages = await read_pages(database, HistoryFilter(causes=frozenset({RARE})), 50)
    assert [[row.id for row in page] for page in pages] == [["exe_1"]]


async def test_lifetime_totals_are_by_instant(database: Database):
    """Every final status has its number of instants, and what is open has none."""
    await add_job(database)
    stretch = ledger_row(
        1, S.MISSED, cause=Cause.SCHEDULE, until_us=to_us(NOW + timedelta(days=1)),
        instant_count=1000,
    )  # fmt: skip
    rows = [stretch, ledger_row(2, S.MISSED), ledger_row(3, S.COMPLETED), ledger_row(4, S.QUEUED)]
    for row in rows:
        await database.write(insert, [row])
    assert await database.read(totals_repository.lifetime_instants, JOB) == {
        S.COMPLETED: 1, S.FAILED: 0, S.CANCELLED: 0, S.UNKNOWN: 0, S.SKIPPED: 0, S.MISSED: 1001,
    }  # fmt: skip


def test_a_filter_by_reason_knows_who_has_one():
    """Asked for a reason, completed executions are not looked through: they have none."""
    wanted = HistoryFilter(reasons=frozenset({Reason.STATUS}))
    assert wanted.possible == STATUSES_WITH_REASON
    assert replace(wanted, statuses=frozenset({S.COMPLETED})).possible == frozenset()
