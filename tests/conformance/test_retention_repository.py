"""Retention removes what is too old or too much, and leaves counters and proofs as they were."""

from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy.exc import IntegrityError

from app.domain.clock import to_us
from app.domain.execution import Cause, ExecutionStatus, Reason
from app.domain.history import HistoryFilter
from app.domain.ids import ExecutionId, JobId
from app.repositories import (
    execution_repository,
    idempotency_repository,
    retention_repository,
    totals_repository,
)
from app.repositories.idempotency_repository import Answered
from app.repositories.retention_repository import OTHER_STATUSES, Surplus
from tests.conformance.builders import (
    JOB,
    NOW,
    NOW_US,
    SECOND,
    add_job,
    add_rows,
    claim_one,
    make_ending,
    make_row,
    read_history,
    record,
)
from tests.conformance.test_history_repository import insert, ledger_row
from tests.support.databases import Database

S = ExecutionStatus
OTHER = JobId("other")


def others(seconds: int, **changes: Any) -> Surplus:
    """Ask for what ended well, or did not run, before so many seconds after now."""
    return Surplus(statuses=OTHER_STATUSES, ended_before=NOW + seconds * SECOND, **changes)


async def look(database: Database, surplus: Surplus, *, after: int = 0, rows: int = 100):
    return await database.read(retention_repository.look_for, surplus, after=after, rows=rows)


async def add(database: Database, *rows: dict[str, Any]) -> None:
    for row in rows:
        await database.write(insert, [row])


async def test_only_ended_executions_of_the_group_are_found(database: Database):
    """Of every status, those of the group that ended before the cut are found, in order."""
    await add_job(database)
    await add(database, *(ledger_row(number, status) for number, status in enumerate(S)))
    found = await look(database, others(100))
    assert [row.status for row in found.entries] == [
        S.COMPLETED, S.CANCELLED, S.SKIPPED, S.MISSED,
    ]  # fmt: skip
    for status in (S.FAILED, S.UNKNOWN):
        surplus = Surplus(statuses=frozenset({status}), ended_before=NOW + 100 * SECOND)
        assert [row.status for row in (await look(database, surplus)).entries] == [status]


async def test_what_ended_late_stays_and_is_passed(database: Database):
    """A row that was born early and ended after the cut stays; the look goes on behind it."""
    await add_job(database)
    late = ledger_row(0, S.COMPLETED, finished_us=to_us(NOW + timedelta(hours=1)))
    await add(database, late, ledger_row(1, S.COMPLETED), ledger_row(2, S.COMPLETED))
    found = await look(database, others(10), rows=2)
    assert ([row.id for row in found.entries], found.done) == (["exe_1"], False)
    rest = await look(database, others(10), after=found.last, rows=2)
    assert ([row.id for row in rest.entries], rest.done) == (["exe_2"], True)


async def test_a_look_ends_where_rows_are_too_young(database: Database):
    """Behind the first rows that were born after the cut nothing is looked for."""
    await add_job(database)
    await add(database, *(ledger_row(number, S.COMPLETED) for number in range(10)))
    found = await look(database, others(4), rows=4)
    assert ([row.id for row in found.entries], found.done) == (
        [f"exe_{number}" for number in range(4)],
        False,
    )
    rest = await look(database, others(4), after=found.last, rows=4)
    assert (rest.entries, rest.done) == ([], True)


async def test_a_clock_that_was_ahead_stops_nothing(database: Database):
    """A row that a wrong clock dated into the future does not end a look at those around it."""
    await add_job(database)
    ahead = ledger_row(0, S.COMPLETED, due_us=to_us(NOW + timedelta(days=400)))
    await add(database, ahead, ledger_row(1, S.COMPLETED), ledger_row(2, S.COMPLETED))
    found = await look(database, others(10), rows=2)
    assert ([row.id for row in found.entries], found.done) == (["exe_1"], False)


async def test_one_jobs_rows_are_found_alone(database: Database):
    """Asked for one job, the rows of another are not looked at."""
    await add_job(database)
    await add_job(database, OTHER)
    await add(database, ledger_row(0, S.COMPLETED, job_id=OTHER), ledger_row(1, S.COMPLETED))
    found = await look(database, others(100, job_id=JOB))
    assert [row.id for row in found.entries] == ["exe_1"]


async def test_removing_takes_attempts_along_and_keeps_totals(database: Database):
    """A removed execution is gone with its attempts; the job's counters stay, its total shrinks."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    await record(database, make_ending(run, S.RETRYING))
    again = await claim_one(database, now=NOW + timedelta(minutes=1))
    await record(database, make_ending(again, S.COMPLETED))
    found = await look(database, others(1000))
    await database.write(retention_repository.remove, found.entries)
    assert await read_history(database) == []
    assert await database.rows("SELECT * FROM attempts") == []
    totals = await database.read(totals_repository.lifetime_instants, JOB)
    assert totals[S.COMPLETED] == 1
    assert await database.read(totals_repository.count_kept, HistoryFilter(job_id=JOB)) == 0
    assert await database.rows("SELECT total, instants, pruned FROM job_totals") == [
        {"total": 1, "instants": 1, "pruned": 1}
    ]


async def test_a_job_notes_its_latest_removed_instant(database: Database):
    """Up to the latest due instant removed (of a stretch: its last) a proof asks for no row."""
    await add_job(database)
    await add_job(database, OTHER)
    until = NOW + timedelta(days=1)
    await add(
        database,
        ledger_row(
            1, S.MISSED, cause=Cause.SCHEDULE, until_us=to_us(until), instant_count=50,
            reason=Reason.SCHEDULER_DOWN,
        ),
        ledger_row(2, S.COMPLETED, cause=Cause.CATCH_UP),
        ledger_row(3, S.COMPLETED, job_id=OTHER),
        ledger_row(900, S.COMPLETED, cause=Cause.SCHEDULE),
    )  # fmt: skip
    found = await look(database, others(100))
    await database.write(retention_repository.remove, found.entries)
    pruned = "SELECT id, pruned_us FROM jobs ORDER BY id"
    expected = [{"id": JOB, "pruned_us": to_us(until)}, {"id": OTHER, "pruned_us": None}]
    assert await database.rows(pruned) == expected
    later = await look(database, others(1000))
    assert [row.id for row in later.entries] == ["exe_900"]
    await database.write(retention_repository.remove, later.entries)
    assert await database.rows(pruned) == expected


async def test_an_open_execution_cannot_be_removed(database: Database):
    """Should one that has not ended ever be named, the database refuses, and nothing is removed."""
    await add_job(database)
    await add(database, ledger_row(1, S.COMPLETED), ledger_row(2, S.QUEUED))
    (entry,) = (await look(database, others(100))).entries
    (open_row,) = await database.rows("SELECT seq FROM executions WHERE status = 'queued'")
    forged = SimpleNamespace(**{**entry._mapping, "seq": open_row["seq"]})
    with pytest.raises(IntegrityError):
        await database.write(retention_repository.remove, [entry, forged])
    assert len(await read_history(database)) == 2


async def test_jobs_that_keep_too_much_are_found_in_pages(database: Database):
    """Each group counts for itself, and what was removed counts no more."""
    for name, completed, failed in (("a", 3, 0), ("b", 2, 2), ("c", 0, 3), ("d", 5, 1)):
        await add_job(database, name)
        rows = [S.COMPLETED] * completed + [S.FAILED] * failed
        await add(
            database,
            *(ledger_row(0, s, id=f"{name}{n}", job_id=name) for n, s in enumerate(rows)),
        )
    found = await look(database, others(100, job_id=JobId("d")), rows=4)
    await database.write(retention_repository.remove, found.entries)
    above: list[tuple[str, int, int]] = []
    after: str | None = ""
    while after is not None:
        page, after = await database.read(
            totals_repository.jobs_above, after=after, rows=2, limit=2
        )
        above += [(kept.job_id, kept.others, kept.failed) for kept in page]
    assert above == [("a", 3, 0), ("c", 0, 3)]


async def test_old_request_keys_are_forgotten_some_at_a_time(database: Database):
    """Keys older than a day go, a limited number at once; younger ones stay."""
    keys = "INSERT INTO idempotency_keys VALUES (:key, 'hash', 'answer', :at)"
    day = timedelta(hours=24)
    for number in range(3):
        at = to_us(NOW - day - timedelta(minutes=number))
        await database.execute(keys, key=f"old-{number}", at=at)
    await database.execute(keys, key="young", at=to_us(NOW - day + SECOND))
    forget = idempotency_repository.forget_old
    assert [await database.write(forget, now=NOW, rows=2) for _ in range(3)] == [2, 1, 0]
    found = await database.read(idempotency_repository.find_answered, "young", now=NOW)
    assert found == Answered("hash", "answer")


async def test_an_answer_takes_the_place_of_an_old_one_alone(database: Database):
    """A key that comes again after a day is remembered anew, and no other is removed with it."""
    keys = "INSERT INTO idempotency_keys VALUES (:key, 'hash', 'answer', :at)"
    for key in ("a", "b"):
        await database.execute(keys, key=key, at=to_us(NOW - timedelta(hours=25)))
    answered = Answered("new", "answer")
    await database.write(idempotency_repository.remember, "a", answered, now=NOW)
    rows = await database.rows("SELECT key, request_hash FROM idempotency_keys ORDER BY key")
    assert rows == [{"key": "a", "request_hash": "new"}, {"key": "b", "request_hash": "hash"}]
    assert await database.write(idempotency_repository.forget_old, now=NOW, rows=10) == 1


@pytest.mark.parametrize("status", [S.QUEUED, S.RETRYING])
async def test_cancelling_one_that_waits(database: Database, status: ExecutionStatus):
    """A waiting execution is cancelled at once, and stays so when cancelled again."""
    await add_job(database)
    await add(database, ledger_row(1, status))
    cancel = execution_repository.cancel_one
    for _ in range(2):
        found = await database.write(
            cancel, ExecutionId("exe_1"), reason=Reason.USER, now_us=NOW_US
        )
        assert found is not None
        assert (found.job_id, found.status, found.reason) == (JOB, S.CANCELLED, Reason.USER)
    (row,) = await read_history(database)
    assert (row.status, row.reason, row.finished_at) == (S.CANCELLED, Reason.USER, NOW)


async def test_cancelling_one_that_runs_or_is_over(database: Database):
    """A running execution gets no further attempt; an ended or unknown one is left alone."""
    await add_job(database)
    await add(database, ledger_row(1, S.RUNNING), ledger_row(2, S.COMPLETED))
    answers = [
        await database.write(
            execution_repository.cancel_one,
            ExecutionId(name),
            reason=Reason.USER,
            now_us=NOW_US,
        )
        for name in ("exe_1", "exe_2", "exe_3")
    ]
    assert [found and found.status for found in answers] == [S.RUNNING, S.COMPLETED, None]
    assert await database.rows("SELECT stop_reason FROM executions ORDER BY seq") == [
        {"stop_reason": "user"},
        {"stop_reason": None},
    ]
