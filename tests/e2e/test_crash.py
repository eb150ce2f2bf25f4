"""kill -9 in mid-attempt, and what a second start on the same data makes of it."""

from dataclasses import dataclass, field
from datetime import datetime, timedelta

import pytest

from tests.e2e.world import (
    CLOCK,
    LATE_AT_MOST,
    Row,
    Script,
    arrivals,
    arrived_at,
    assert_names,
    assert_no_gap,
    create,
    instant,
    instants_of,
    is_final,
    read_execution,
    read_history,
    read_recent,
    soon,
    until,
    wait_for_end,
)
from tests.support.homes import Home
from tests.support.raw_server import RawServer, hang, reply
from tests.support.service import Service, eventually

SECOND = timedelta(seconds=1)
DOWN_FOR = 5 * SECOND
BACKOFF_SECONDS = 7
# On PostgreSQL what was under way is found lost when its lease is over: this, ten seconds more, and
# what the next look takes.
TIMEOUT_SECONDS = 10
RESCUED_SECONDS = 45.0
# A job that runs every second, for each policy; what is found late is found after half a second.
POLICIES = ("none", "latest", "all")
TICKS = ("tick", *POLICIES)


@dataclass(slots=True, kw_only=True)
class Story:
    """What was seen before the kill, and when the process was away."""

    first: dict[str, datetime]
    before: dict[str, Row] = field(default_factory=dict)
    down_from: datetime = field(default_factory=CLOCK.now)
    down_until: datetime = field(default_factory=CLOCK.now)


@pytest.mark.slow
async def test_a_crash_loses_nothing(home: Home):
    """After kill -9 the history is whole, what was under way goes on, retries keep their time."""
    script = Script(
        {
            "/held": (hang, reply("again")),
            "/once-only": (hang, reply("never")),
            "/flaky": (reply(status="503 Service Unavailable"), reply("up again")),
            "/plain": (reply("plain"),),
            **{f"/{job_id}": (reply(),) for job_id in TICKS},
        }
    )
    async with RawServer((script,)) as target, Service(home) as service:
        story = Story(first=await _create_jobs(service, target))
        await eventually(lambda: _is_in_mid_attempt(service, target))
        story.before = await read_recent(service.client)
        await service.kill()
        story.down_from = CLOCK.now()
        await until(story.down_from + DOWN_FOR)
        story.down_until = CLOCK.now()
        await service.start()

        await _check_history(service, story)
        await _check_interrupted(service, target)
        await _check_retry(service, target, story, ready_at=CLOCK.now())
        await _check_downtime(service, target, story)


async def _create_jobs(service: Service, target: RawServer) -> dict[str, datetime]:
    """Create the jobs of the story; tell when those that run every second begin."""
    client = service.client
    first = {}
    for job_id in TICKS:
        late = {} if job_id == "tick" else {"misfire_grace_time": 0.5, "catch_up": job_id}
        created = await create(
            client,
            job_id,
            target.url(f"/{job_id}"),
            schedule_type="interval",
            interval={"seconds": 1},
            overlap_policy="allow",
            timeout_sec=TIMEOUT_SECONDS,
            **late,
        )
        first[job_id] = instant(created["next_run_time"])
    once = {"schedule_type": "date", "run_at": soon(0.5), "timeout_sec": TIMEOUT_SECONDS}
    await create(client, "held", target.url("/held"), **once)
    await create(client, "once-only", target.url("/once-only"), on_crash="fail", **once)
    await create(client, "plain", target.url("/plain"), **once)
    retry = {"max_retries": 1, "retry_backoff_sec": BACKOFF_SECONDS}
    await create(client, "flaky", target.url("/flaky"), **retry, **once)
    return first


async def _is_in_mid_attempt(service: Service, target: RawServer) -> bool:
    """Tell whether answers are held, a retry waits, and there is a past to be lost."""
    rows = (await read_recent(service.client)).values()
    completed = [row["job_id"] for row in rows if row["status"] == "completed"]
    return (
        len(arrivals(target, "/held")) == 1
        and len(arrivals(target, "/once-only")) == 1
        and any(row["status"] == "retrying" for row in rows)
        and "plain" in completed
        and completed.count("tick") >= 2
    )


async def _check_history(service: Service, story: Story) -> None:
    """All that was over is as it was, and of what was running nothing still is."""

    async def settled() -> dict[str, Row] | None:
        rows = await read_recent(service.client)
        left = [rows[id_] for id_ in story.before if not is_final(rows[id_])]
        return rows if {row["job_id"] for row in left} <= {"flaky"} else None

    after = await eventually(settled, seconds=RESCUED_SECONDS)
    for id_, row in story.before.items():
        if is_final(row):
            assert after[id_] == row
    flaky = next(row for row in after.values() if row["job_id"] == "flaky")
    assert flaky["status"] in {"retrying", "completed"}


async def _check_interrupted(service: Service, target: RawServer) -> None:
    """The interrupted execution went on under the same id, unless its job forbids that."""
    held = await wait_for_end(service.client, "held")
    assert (held["status"], held["attempts"]) == ("completed", 2)
    assert held["result"]["response_body"] == "again"
    assert [a["outcome"] for a in held["attempt_list"]] == ["lost", "response"]
    assert [a["reason"] for a in held["attempt_list"]] == ["crash", None]
    requests = arrivals(target, "/held")
    assert len(requests) == 2
    for number, request in enumerate(requests, start=1):
        assert_names(request, held, attempt=number)

    once_only = await wait_for_end(service.client, "once-only")
    assert (once_only["status"], once_only["reason"]) == ("unknown", "crash")
    assert "may or may not have received" in once_only["error_message"]
    assert len(arrivals(target, "/once-only")) == 1


async def _check_retry(
    service: Service, target: RawServer, story: Story, *, ready_at: datetime
) -> None:
    """The retry that waited when the process died was made at its time, under the same id."""
    (waiting,) = [row for row in story.before.values() if row["job_id"] == "flaky"]
    due = instant(waiting["next_attempt_at"])
    assert due >= instant(waiting["started_at"]) + timedelta(seconds=BACKOFF_SECONDS)
    flaky = await wait_for_end(service.client, "flaky")
    assert (flaky["status"], flaky["attempts"]) == ("completed", 2)
    requests = arrivals(target, "/flaky")
    assert len(requests) == 2
    for number, request in enumerate(requests, start=1):
        assert_names(request, flaky, attempt=number)
    assert due <= arrived_at(requests[1]) <= max(due, ready_at) + LATE_AT_MOST


async def _check_downtime(service: Service, target: RawServer, story: Story) -> None:
    """Every instant of the downtime is accounted for, as each job's policy says."""
    for job_id in TICKS:
        rows = await _goes_on(service, job_id, after=story.down_until + 3 * SECOND)
        assert_no_gap(rows, first=story.first[job_id], period=SECOND)
        for row in rows:
            assert row["reason"] is not None or row["status"] not in {"skipped", "missed"}
    assert await _fates(service, "none", story) == {("missed", "scheduler_down", "schedule")}
    assert await _fates(service, "latest", story) == {("skipped", "coalesced", "schedule")}
    assert await _fates(service, "all", story) == {("completed", None, "catch_up")}
    for job_id in TICKS:
        await _check_sent(service, target, job_id)


async def _goes_on(service: Service, job_id: str, *, after: datetime) -> list[Row]:
    """Wait until a job has completed a run that came due after a moment, and what was before."""

    async def going() -> list[Row] | None:
        rows = await read_history(service.client, job_id)
        done = [row for row in rows if instant(row["scheduled_for"]) > after]
        settled = any(row["status"] == "completed" for row in done) and all(
            is_final(row) for row in rows if row not in done
        )
        return rows if settled else None

    rows: list[Row] = await eventually(going)
    return rows


async def _fates(service: Service, job_id: str, story: Story) -> set[tuple[str, str | None, str]]:
    """Tell what became of the instants that lie safely within the downtime."""
    begin, end = story.down_from + SECOND, story.down_until - 1.5 * SECOND
    rows = await read_history(service.client, job_id)
    fates = [
        (row["status"], row["reason"], row["cause"])
        for row in rows
        for due in instants_of([row], SECOND)
        if begin <= due <= end
    ]
    assert len(fates) >= 2
    return set(fates)


async def _check_sent(service: Service, target: RawServer, job_id: str) -> None:
    """Each request was made for an entry of the ledger, and under one attempt number once."""
    rows = {row["execution_id"]: row for row in await read_history(service.client, job_id)}
    sent = [
        (request.headers["webhook-id"], int(request.headers["x-scheduler-attempt"]))
        for request in arrivals(target, f"/{job_id}")
    ]
    assert len(set(sent)) == len(sent)
    assert {id_ for id_, _ in sent} <= set(rows)
    for id_ in {id_ for id_, number in sent if number > 1}:
        first, *_ = (await read_execution(service.client, id_))["attempt_list"]
        assert first["outcome"] == "lost"
