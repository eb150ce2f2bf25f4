"""The ledger is proven from what is stored, on both databases; a change by hand shows."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import pytest

from app.db.unit_of_work import ReadConnection
from app.domain.clock import SystemClock, from_us
from app.domain.errors import JobNotFoundError
from app.domain.execution import ExecutionStatus, NewExecution, Reason
from app.domain.ids import JobId
from app.domain.job import Change, Job, JobState
from app.domain.schedule import IntervalRule
from app.engine.audit_walk import Audit
from app.engine.auditor import Auditor, AuditorOptions, AuditRequest
from app.engine.reconciliation import DuplicateKind, Finding
from app.engine.rules_in_force import Span
from app.repositories import audit_repository, job_repository
from tests.conformance.builders import (
    JOB,
    NOW,
    NOW_US,
    SECOND,
    add_job,
    add_rows,
    make_definition,
    make_job,
    make_unrun,
)
from tests.support.builders import make_schedule
from tests.support.databases import Database, DatabaseKind

T = TypeVar("T")

EVERY_SECOND = make_schedule(rule=IntervalRule(period=SECOND, parts=(("seconds", 1),)))
ROWS = 100
# Small pages, so that the tests cross many of them.
OPTIONS = AuditorOptions(jobs_max=2, revisions_max=3, rows_max=7, background_rows_max=7)


def at(number: int) -> int:
    """Tell the instant so many seconds after the start, in microseconds."""
    return NOW_US + number * 1_000_000


def every_second(job_id: str = JOB, **changes: Any) -> Job:
    """Describe a job of every second that is accounted for up to the hundredth instant."""
    values: dict[str, Any] = {
        "definition": make_definition(schedule=EVERY_SECOND),
        "cursor": NOW,
        "next_run_time": NOW + SECOND,
    }
    return make_job(job_id, **{**values, **changes})


async def account(database: Database, *rows: NewExecution, until: int, job_id: str = JOB) -> None:
    """Store rows and move the cursor behind them."""
    await add_rows(database, *rows)
    await database.execute(
        "UPDATE jobs SET cursor_us = :cursor, next_run_us = :next WHERE id = :id",
        cursor=at(until), next=at(until + 1), id=job_id,
    )  # fmt: skip


async def add_ledger(database: Database, job_id: str = JOB) -> None:
    """Store a job of every second with a row for each of a hundred instants."""
    await database.write(job_repository.insert_job, every_second(job_id), actor=None)
    rows = [make_unrun(number, job_id=job_id) for number in range(1, ROWS + 1)]
    await account(database, *rows, until=ROWS, job_id=job_id)


async def verify(database: Database, **request: Any) -> Audit:
    auditor = Auditor(unit_of_work=database.unit_of_work, clock=SystemClock(), options=OPTIONS)
    return await auditor.verify(AuditRequest(**request))


def span(first: int, last: int) -> Span:
    return Span(after_us=at(first) - 1, until_us=at(last))


def brief(found: list[Finding]) -> list[tuple[int, int, int]]:
    """Write findings as first and last second, and count."""
    return [((f.first_us - NOW_US) // 10**6, (f.last_us - NOW_US) // 10**6, f.count) for f in found]


async def drop(database: Database, *numbers: int) -> None:
    """Remove rows by hand."""
    for number in numbers:
        done = await database.execute(
            "DELETE FROM executions WHERE scheduled_us = :us", us=at(number)
        )
        assert done == 1


async def test_a_whole_ledger_is_accounted_for(database: Database):
    """With a row for every instant, as many are accounted for as are expected."""
    for number in range(5):
        await add_ledger(database, f"job-{number}")
    audit = await verify(database)
    assert (audit.tally.expected, audit.tally.accounted) == (5 * ROWS, 5 * ROWS)
    assert audit.tally.is_clean
    assert (audit.jobs, audit.revisions, audit.complete) == (5, 5, True)


async def test_a_removed_row_is_unaccounted(database: Database):
    """Exactly the instant whose row was removed is named, with its job and revision."""
    await add_ledger(database, "other")
    await add_ledger(database)
    await database.execute(
        "DELETE FROM executions WHERE scheduled_us = :us AND job_id = :id", us=at(42), id=JOB
    )
    tally = (await verify(database)).tally
    expected = Finding(job_id=JOB, revision=1, first_us=at(42), last_us=at(42), count=1)
    assert tally.unaccounted == [expected]
    assert (tally.expected, tally.accounted, tally.unaccounted_count) == (200, 199, 1)
    assert tally.duplicates == []


async def test_a_row_too_many_makes_up_for_none(database: Database):
    """One row removed and one added off the schedule are two findings; the number is right."""
    await add_ledger(database)
    await drop(database, 42)
    await add_rows(database, make_unrun(43, scheduled_for=from_us(at(43) + 5), id="off"))
    tally = (await verify(database)).tally
    assert brief(tally.unaccounted) == [(42, 42, 1)]
    (extra,) = tally.duplicates
    assert (extra.kind, extra.first_us) == (DuplicateKind.UNEXPECTED_ROW, at(43) + 5)


async def test_neighbours_are_one_finding_across_pages(database: Database):
    """A run of removed rows is named once, by first, last and number; all are counted."""
    await add_ledger(database)
    await drop(database, *range(20, 61), 80)
    tally = (await verify(database)).tally
    assert brief(tally.unaccounted) == [(20, 60, 41), (80, 80, 1)]
    assert tally.unaccounted_count == 42


async def test_a_ledger_without_rows(database: Database):
    """Where every row is gone, all instants are one finding."""
    await add_ledger(database)
    await drop(database, *range(1, ROWS + 1))
    tally = (await verify(database)).tally
    assert brief(tally.unaccounted) == [(1, ROWS, ROWS)]
    assert (tally.expected, tally.accounted) == (ROWS, 0)


async def test_the_ends_of_a_span_belong_to_it(database: Database):
    """Only the instants from one moment to another are looked at, both included."""
    await add_ledger(database)
    await drop(database, 9, 10, 30, 31)
    tally = (await verify(database, span=span(10, 30))).tally
    assert (tally.expected, tally.unaccounted_count) == (21, 2)
    assert brief(tally.unaccounted) == [(10, 10, 1), (30, 30, 1)]


async def test_a_row_behind_the_cursor_is_a_duplicate(database: Database):
    """A row of an instant that the job has not come to is told."""
    await add_ledger(database)
    await add_rows(database, make_unrun(ROWS + 2), make_unrun(ROWS + 3))
    tally = (await verify(database)).tally
    assert brief(tally.duplicates) == [(ROWS + 2, ROWS + 3, 2)]
    assert tally.duplicates[0].kind is DuplicateKind.BEYOND_CURSOR
    assert tally.unaccounted == []


async def test_a_second_row_of_an_instant(database: Database):
    """If the index that forbids it is gone, an instant's second row is found."""
    await add_ledger(database)
    await database.execute("DROP INDEX executions_due")
    again = [make_unrun(number, id=f"again-{number}") for number in range(13, 33)]
    await add_rows(database, *again)
    tally = (await verify(database)).tally
    assert [(f.kind, f.first_us) for f in tally.duplicates] == [
        (DuplicateKind.SECOND_ROW, at(number)) for number in range(13, 33)
    ]
    assert tally.accounted == ROWS


async def add_stretched(database: Database, job_id: str = JOB, **changes: Any) -> None:
    """Store a job with rows, a stretch of the instants 11 to 60, and rows again."""
    await database.write(job_repository.insert_job, every_second(job_id), actor=None)
    stretch = {"until": from_us(at(60)), "instant_count": 50, **changes}
    rows = [make_unrun(number, job_id=job_id) for number in (*range(1, 11), *range(61, 101))]
    await account(
        database, *rows, make_unrun(11, job_id=job_id, **stretch), until=ROWS, job_id=job_id
    )


async def test_a_stretch_accounts_for_all_between(database: Database):
    """A stretch row stands for every instant from its first to its last."""
    await add_stretched(database)
    tally = (await verify(database)).tally
    assert (tally.expected, tally.accounted, tally.is_clean) == (ROWS, ROWS, True)


@pytest.mark.parametrize(("first", "last"), [(1, 30), (30, 40), (30, 90), (60, 60), (61, 70)])
async def test_a_span_may_cut_a_stretch(database: Database, first: int, last: int):
    """Of a stretch that reaches into the span only the part inside is counted."""
    await add_stretched(database)
    tally = (await verify(database, span=span(first, last))).tally
    assert (tally.expected, tally.is_clean) == (last - first + 1, True)


async def test_a_stretch_that_counts_too_few(database: Database):
    """A stretch whose count was lowered leaves as many instants unaccounted."""
    await add_stretched(database, instant_count=47)
    tally = (await verify(database)).tally
    assert brief(tally.unaccounted) == [(11, 60, 3)]
    assert (tally.accounted, tally.duplicates) == (ROWS - 3, [])


async def test_a_hole_before_a_stretch_that_counts_too_few(database: Database):
    """A hole that ends where a miscounted stretch begins is a finding of its own."""
    await add_stretched(database, instant_count=47)
    await drop(database, 9, 10)
    tally = (await verify(database)).tally
    assert brief(tally.unaccounted) == [(9, 10, 2), (11, 60, 3)]


async def test_a_stretch_that_counts_too_many(database: Database):
    """A stretch whose count was raised accounts twice for as many."""
    await add_stretched(database, instant_count=55)
    tally = (await verify(database)).tally
    assert [(f.kind, f.count) for f in tally.duplicates] == [(DuplicateKind.STRETCH_COUNT, 5)]
    assert tally.unaccounted == []


async def test_a_stretch_cut_short(database: Database):
    """A stretch that ends earlier than it counts leaves the instants behind it unaccounted."""
    await add_stretched(database, until=from_us(at(50)))
    tally = (await verify(database)).tally
    assert brief(tally.unaccounted) == [(51, 60, 10)]
    assert tally.duplicates_count == 10


async def test_rows_inside_a_stretch(database: Database):
    """A row of an instant that a stretch accounts for is its second; one off the rule is none."""
    await add_stretched(database)
    await add_rows(database, make_unrun(30))
    await add_rows(database, make_unrun(40, scheduled_for=from_us(at(40) + 1), id="off"))
    tally = (await verify(database)).tally
    assert [(f.kind, f.first_us) for f in tally.duplicates] == [
        (DuplicateKind.SECOND_ROW, at(30)),
        (DuplicateKind.UNEXPECTED_ROW, at(40) + 1),
    ]
    assert tally.unaccounted == []


async def test_stretches_over_each_other(database: Database):
    """Instants that two stretches account for are counted as doubled."""
    await add_stretched(database)
    await drop(database, *range(61, 71))
    overlap = make_unrun(51, until=from_us(at(70)), instant_count=20)
    await add_rows(database, overlap)
    tally = (await verify(database)).tally
    assert [(f.kind, f.count) for f in tally.duplicates] == [(DuplicateKind.SECOND_ROW, 10)]
    assert tally.unaccounted == []


async def change(database: Database, job: Job, kind: Change, *, accounted: int, **now: Any) -> Job:
    """Store a job's next revision."""
    changed = make_job(
        **{
            "job_id": job.id, "definition": job.definition, "anchor": job.anchor,
            "clock_epoch": job.clock_epoch, "state": job.state, "cursor": job.cursor,
            "next_run_time": NOW + 90 * SECOND, **now, "revision": job.revision + 1,
        }
    )  # fmt: skip
    await database.write(
        job_repository.save_job, changed, kind, accounted=from_us(at(accounted)), actor=None
    )
    return changed


async def test_each_revision_answers_for_its_own_time(database: Database):
    """Edits, a pause, a deletion and a new job of the same id: each rule accounts for its time."""
    job = every_second()
    await database.write(job_repository.insert_job, job, actor=None)
    await account(database, *[make_unrun(n) for n in range(1, 11)], until=10)
    slower = make_schedule(rule=IntervalRule(period=10 * SECOND, parts=(("seconds", 10),)))
    job = await change(
        database, job, Change.EDITED, accounted=10, definition=make_definition(schedule=slower),
        cursor=NOW + 10 * SECOND, anchor=NOW + 10 * SECOND,
    )  # fmt: skip
    await account(database, make_unrun(20), make_unrun(30), until=30)
    job = await change(
        database, job, Change.PAUSED, accounted=35, state=JobState.PAUSED, next_run_time=None,
        cursor=NOW + 35 * SECOND,
    )  # fmt: skip
    skipped = {"status": ExecutionStatus.SKIPPED, "reason": Reason.PAUSED}
    await add_rows(database, make_unrun(40, until=from_us(at(70)), instant_count=4, **skipped))
    job = await change(
        database, job, Change.DELETED, accounted=75, state=JobState.DELETED, next_run_time=None,
        cursor=NOW + 75 * SECOND,
    )  # fmt: skip
    job = await change(
        database, job, Change.CREATED, accounted=75, state=JobState.ACTIVE, clock_epoch=1,
        cursor=NOW + 80 * SECOND, anchor=NOW + 80 * SECOND,
    )  # fmt: skip
    await account(database, make_unrun(90, clock_epoch=1, id="90"), until=90)
    audit = await verify(database)
    assert (audit.tally.expected, audit.tally.is_clean) == (10 + 2 + 4 + 1, True)
    assert audit.revisions == 5
    await drop(database, 20)
    await add_rows(database, make_unrun(77), make_unrun(85, clock_epoch=1, id="85"))
    tally = (await verify(database)).tally
    assert [(f.revision, f.first_us) for f in tally.unaccounted] == [(2, at(20))]
    assert [(f.kind, f.first_us) for f in tally.duplicates] == [
        (DuplicateKind.UNEXPECTED_ROW, at(77)),
        (DuplicateKind.UNEXPECTED_ROW, at(85)),
    ]


async def test_what_cannot_be_recomputed_is_named(database: Database):
    """A spoilt revision, and one that is gone, are told; their rows are not judged."""
    await add_ledger(database)
    await add_ledger(database, "gone")
    await database.execute("UPDATE job_revisions SET schedule = '{}' WHERE job_id = :id", id=JOB)
    on_table = "" if database.kind is DatabaseKind.SQLITE else " ON job_revisions"
    await database.execute(f"DROP TRIGGER job_revisions_stay{on_table}")
    await database.execute("DELETE FROM job_revisions WHERE job_id = 'gone'")
    tally = (await verify(database)).tally
    assert [(u.job_id, u.revision) for u in tally.unreadable] == [("gone", 1), (JOB, 1)]
    assert (tally.expected, tally.unreadable_count, tally.is_clean) == (0, 2, True)


async def test_what_retention_removed_is_not_missing(database: Database):
    """Up to where rows were removed by age nothing is looked at, and the answer says so."""
    await add_ledger(database)
    await drop(database, *range(1, 31), 50)
    await database.execute("UPDATE jobs SET pruned_us = :us", us=at(30))
    audit = await verify(database)
    assert (audit.tally.expected, brief(audit.tally.unaccounted)) == (70, [(50, 50, 1)])
    assert audit.pruned_until == from_us(at(30))


async def test_due_instants_behind_the_cursor_are_overdue(database: Database):
    """What is due and not accounted for yet is counted apart, with its first instant."""
    hour_ago = SystemClock().now().replace(microsecond=0) - timedelta(hours=1)
    hourly = make_schedule(rule=IntervalRule(period=10 * SECOND, parts=(("seconds", 10),)))
    await add_job(
        database, definition=make_definition(schedule=hourly), anchor=hour_ago, cursor=hour_ago,
        next_run_time=hour_ago + 10 * SECOND,
    )  # fmt: skip
    audit = await verify(database)
    assert audit.overdue_count >= 360
    assert audit.overdue_since == hour_ago + 10 * SECOND
    assert audit.tally.expected == 0


async def test_one_job_is_proven_alone(database: Database):
    """A job is proven by its id, and an id that never existed is refused."""
    await add_ledger(database)
    await add_ledger(database, "other")
    audit = await verify(database, job_id=JOB)
    assert (audit.jobs, audit.tally.expected) == (1, ROWS)
    with pytest.raises(JobNotFoundError):
        await verify(database, job_id=JobId("none"))


async def test_a_request_that_runs_out_of_time_can_go_on(database: Database):
    """When the time is over the answer says how far it came, and the rest is proven from there."""
    for number in range(6):
        await add_ledger(database, f"job-{number}")
    after, jobs, rounds = JobId(""), 0, 0
    within = timedelta(milliseconds=3)
    while True:
        audit = await verify(database, after=after, within=within)
        jobs, rounds = jobs + audit.jobs, rounds + 1
        if audit.complete:
            break
        if audit.last_job is None:
            # Too little for a single job, on this machine at this moment.
            within *= 2
        after = audit.last_job or after
    assert jobs == 6
    assert rounds > 1


async def test_a_rule_that_cannot_be_followed_stops_no_other(database: Database):
    """A job whose stored numbers make no sense is named, and the others are proven."""
    await add_ledger(database)
    await add_ledger(database, "nonsense")
    await database.execute(
        "UPDATE job_revisions SET anchor_us = 9000000000000000000 WHERE job_id = 'nonsense'"
    )
    tally = (await verify(database)).tally
    assert [(one.job_id, one.revision) for one in tally.unreadable] == [("nonsense", 1)]
    assert (tally.expected, tally.is_clean) == (ROWS, True)


class HeldReads:
    """A reading door that lets nobody through before it is opened."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.opened = asyncio.Event()

    async def read(self, unit: Callable[[ReadConnection], T]) -> T:
        await self.opened.wait()
        return await self._database.unit_of_work.read(unit)


async def test_requests_wait_for_each_other_and_not_for_ever(database: Database):
    """One request at a time is worked on; another says after its time that it came to nothing."""
    await add_ledger(database)
    door = HeldReads(database)
    auditor = Auditor(unit_of_work=door, clock=SystemClock(), options=OPTIONS)  # type: ignore[arg-type]  # a fake
    async with asyncio.TaskGroup() as group:
        first = group.create_task(auditor.verify(AuditRequest()))
        await asyncio.sleep(0)  # it has its turn now
        second = await auditor.verify(
            AuditRequest(after=JobId("a"), within=timedelta(milliseconds=10))
        )
        door.opened.set()
    assert (second.complete, second.jobs, second.last_job) == (False, 0, "a")
    assert (await first).tally.expected == ROWS


async def test_jobs_without_news_are_passed_over(database: Database):
    """Of all jobs those are listed that moved since one moment, or should have by another."""
    await add_job(database, "moved", cursor=NOW + SECOND, next_run_time=NOW + 9 * SECOND)
    await add_job(database, "resting", cursor=NOW - SECOND, next_run_time=NOW + 9 * SECOND)
    await add_job(database, "due", cursor=NOW - SECOND, next_run_time=NOW + SECOND)
    await add_job(database, "paused", cursor=NOW, state=JobState.PAUSED, next_run_time=None)
    asked = {"limit": 9, "moved_us": NOW_US, "due_us": NOW_US + 1_000_000}
    found = await database.read(audit_repository.list_moved_heads, after=JobId(""), **asked)
    assert [one.id for one in found] == ["due", "moved"]
    later = await database.read(audit_repository.list_moved_heads, after=JobId("due"), **asked)
    assert [one.id for one in later] == ["moved"]
