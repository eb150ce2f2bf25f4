from datetime import UTC, datetime, timedelta

import pytest

from app.domain.clock import from_us, to_us
from app.domain.execution import AttemptOutcome, ExecutionStatus, Outcome, Reason
from app.domain.ids import JobId
from app.domain.job import Delivery, HttpTarget, JobState
from app.domain.policies import RetryPolicy
from app.domain.schedule import DateRule, Schedule
from app.repositories import execution_repository, job_repository
from tests.conformance.builders import (
    NOW,
    add_job,
    add_rows,
    claim_one,
    make_definition,
    make_ending,
    make_row,
    read_history,
    record,
)
from tests.support.databases import Database

TEXTS = {
    "japanese": "毎朝の請求書 ポスト",
    "emoji": "🚀👩‍👩‍👧‍👦🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "combining": "e\u0301 ≠ é, \u200f\u202e right to left",
    "quotes": """'; DROP TABLE jobs; -- "x" `y` $$ \\' %s :name ? $1""",
    "lines": "one\r\ntwo\n\tthree\u2028four",
    "empty": "",
    "large": "あ" * 200_000,
}
INSTANTS = [
    datetime(1970, 1, 1, tzinfo=UTC),
    datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    datetime(2026, 11, 21, 7, 0, 0, 1, tzinfo=UTC),
    datetime(2038, 1, 19, 3, 14, 8, tzinfo=UTC),
    datetime(9999, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
]


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_a_jobs_texts_come_back_unchanged(database: Database, text: str):
    """Names, reasons, headers and bodies are stored character by character."""
    target = HttpTarget(method="POST", url="http://t/", headers=(("X", text),), body_json=text)
    delivery = Delivery(target=target, timeout=timedelta(seconds=1), retry=RetryPolicy())
    job = await add_job(
        database,
        definition=make_definition(name=text, delivery=delivery),
        state=JobState.PAUSED,
        state_reason=text or "a reason",
        next_run_time=None,
    )
    assert await database.read(job_repository.find_job, job.id) == job


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
async def test_an_answers_texts_come_back_unchanged(database: Database, text: str):
    """Excerpts and errors of executions and attempts are stored character by character."""
    outcome = Outcome(
        kind=AttemptOutcome.RESPONSE,
        reason=Reason.STATUS,
        http_status=500,
        response_excerpt=text,
        error=text,
    )
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    await record(database, make_ending(run, ExecutionStatus.RETRYING, outcome=outcome))
    again = await claim_one(database, now=NOW + timedelta(minutes=1))
    await record(database, make_ending(again, ExecutionStatus.FAILED, outcome=outcome))
    found = await database.read(execution_repository.find_execution, make_row().id)
    assert found is not None
    assert (found.response_excerpt, found.error) == (text, text)
    assert await database.rows("SELECT response_excerpt, error FROM attempts") == [
        {"response_excerpt": text, "error": text}
    ]


@pytest.mark.parametrize("job_id", ["x" * 255, "請" * 255, "🚀" * 255, "a/b?c#d e%20'\"\\"])
async def test_long_and_odd_ids_name_one_job(database: Database, job_id: str):
    """An id of 255 characters works in every table, and its neighbour is another job."""
    job = await add_job(database, job_id)
    neighbour = job_id[:-1] + "y"
    await add_job(database, neighbour, next_run_time=NOW + timedelta(hours=1))
    await add_rows(database, make_row(0, job_id), make_row(0, neighbour))
    assert await database.read(job_repository.find_job, JobId(job_id)) == job
    (execution,) = await read_history(database, job_id)
    assert execution.job_id == job_id


async def test_ids_are_told_apart_by_case_and_trailing_space(database: Database):
    """An id is its characters: no folding, no trimming, no normalisation."""
    ids = ["job", "Job", "job ", " job", "e\u0301", "\u00e9"]
    for job_id in ids:
        await add_job(database, job_id)
    assert await database.read(job_repository.count_jobs) == len(ids)


@pytest.mark.parametrize("instant", INSTANTS, ids=str)
async def test_an_instant_keeps_its_microsecond(database: Database, instant: datetime):
    """An instant read is the instant stored, aware, to the microsecond."""
    schedule = Schedule(rule=DateRule(run_at=instant), timezone="UTC", start_at=instant)
    job = await add_job(
        database,
        definition=make_definition(schedule=schedule),
        anchor=instant,
        created_at=instant,
        updated_at=instant,
        next_run_time=None,
    )
    await add_rows(database, make_row(scheduled_for=instant, next_attempt_at=instant))
    assert await database.read(job_repository.find_job, job.id) == job
    found = await database.read(execution_repository.find_execution, make_row().id)
    assert found is not None
    assert (found.scheduled_for, found.next_attempt_at) == (instant, instant)
    assert from_us(to_us(instant)) == instant


async def test_an_instant_of_another_zone_is_the_same_instant(database: Database):
    """Nine in Tokyo is stored and read as midnight UTC."""
    tokyo = datetime.fromisoformat("2026-11-22T09:00:00.000001+09:00")
    await add_job(database, next_run_time=tokyo)
    found = await database.read(job_repository.find_job, make_row().job_id)
    assert found is not None
    assert found.next_run_time == datetime(2026, 11, 22, 0, 0, 0, 1, tzinfo=UTC)
    assert found.next_run_time.utcoffset() == timedelta(0)
