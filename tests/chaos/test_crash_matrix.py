"""Every line of the crash matrix: the process dies at a named point, and what comes of that.

The names are those of ``tests/support/failpoint.py``. Each death is a real ``kill -9`` that the
process gives itself in the middle of the code; then the service starts again on the same data.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import timedelta

import httpx
import pytest

from app.domain.clock import to_us
from tests.chaos.arrivals import Row, find_contradictions, read_rows, whole
from tests.e2e.world import CLOCK, arrived_at, soon
from tests.support import failpoint
from tests.support.databases import DatabaseKind
from tests.support.homes import Home
from tests.support.nursery import KILLED, CrashingService, Nursery
from tests.support.raw_server import RawServer, Step, reply
from tests.support.service import eventually

OK = (reply("ok"),)
FAILS_ONCE = (reply(status="503 Service Unavailable"), reply("ok"))
NOT_FOUND = (reply(status="404 Not Found"),)
RETRY_SECONDS = 1.0
KEY = {"Idempotency-Key": "order-4711"}
# Cause, status and reason of an execution.
Seen = tuple[str, str, str | None]
# Changes made before the one in question.
PREPARED = 3
# The due instant of a job that is paused before.
PASSES_AFTER = timedelta(seconds=0.7)


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    with Nursery() as starts:
        yield starts


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A line of the matrix for one execution that comes due.

    ``left`` is its status in the database when the process is gone (None: no row), ``outcomes``
    what its attempts came to at last, ``arrived`` the numbers of those that arrived whole.
    """

    points: tuple[str, ...]
    left: str | None
    outcomes: tuple[str, ...]
    arrived: tuple[int, ...]
    ends: str = "completed"
    on_crash: str = "retry"
    steps: tuple[Step, ...] = OK
    wait: float = RETRY_SECONDS

    def is_certain_on(self, kind: DatabaseKind) -> bool:
        """Tell whether nothing but the points decides; else only what is true of every line is.

        What works beside the point may or may not have claimed by then: on SQLite work begins once
        the term is taken, a replica works from the start on, whether it comes to lead or not.
        """
        beside = "clock." if kind is DatabaseKind.SQLITE else ("start.", "clock.")
        return not self.points[-1].startswith(beside)

    def __str__(self) -> str:
        extra = "" if self.on_crash == "retry" else "-at-most-once"
        retry = f"-retry-{self.wait}" if self.steps is FAILS_ONCE else ""
        end = "-failed" if self.ends == "failed" else ""
        return "+".join(self.points) + extra + retry + end


ANSWERED = Line(points=(), left=None, outcomes=("response",), arrived=(1,))
SENT_ONCE_MORE = Line(points=(), left="running", outcomes=("lost", "response"), arrived=(2,))
SENT_TWICE = replace(SENT_ONCE_MORE, arrived=(1, 2))
UNKNOWN = Line(
    points=(), left="running", outcomes=("lost",), arrived=(), ends="unknown", on_crash="fail"
)
REFUSED = Line(
    points=(), left="failed", outcomes=("response",), arrived=(1,), ends="failed", steps=NOT_FOUND
)
RETRIED = Line(
    points=(), left="retrying", outcomes=("response", "response"), arrived=(1, 2), steps=FAILS_ONCE
)


def dies(line: Line, *points: str, **changes: object) -> Line:
    """Put the points of a death, one a start, to what comes of it."""
    return replace(line, points=points, **changes)  # type: ignore[arg-type]  # fields of a line


LINES = [
    dies(ANSWERED, "pass.before_commit", left=None),
    dies(ANSWERED, "pass.committed", left="queued"),
    dies(ANSWERED, "claim.before_commit", left="queued"),
    dies(SENT_ONCE_MORE, "claim.committed"),
    dies(UNKNOWN, "claim.committed"),
    dies(SENT_ONCE_MORE, "send.begun"),
    dies(SENT_ONCE_MORE, "send.half"),
    dies(SENT_TWICE, "send.whole"),
    dies(UNKNOWN, "send.whole", arrived=(1,)),
    dies(SENT_TWICE, "send.answer_begun"),
    dies(SENT_TWICE, "send.answered"),
    dies(SENT_TWICE, "record.before_commit"),
    dies(ANSWERED, "record.committed", left="completed"),
    dies(REFUSED, "record.committed"),
    dies(SENT_TWICE, "record.before_commit", ends="failed", steps=NOT_FOUND),
    dies(RETRIED, "record.committed"),
    dies(RETRIED, "record.committed", wait=0.1),
    # The recovery itself dies, and is recovered from.
    dies(SENT_ONCE_MORE, "claim.committed", "rescue.before_commit"),
    dies(SENT_TWICE, "send.whole", "rescue.committed", left="retrying"),
    dies(ANSWERED, "pass.committed", "start.before_commit", left="queued"),
    dies(ANSWERED, "pass.committed", "start.committed", left="queued"),
    dies(ANSWERED, "pass.committed", "clock.before_commit", left="queued"),
    dies(ANSWERED, "pass.committed", "clock.committed", left="queued"),
]


@pytest.mark.parametrize("line", LINES, ids=str)
async def test_a_death_on_the_way_of_a_run(home: Home, nursery: Nursery, line: Line):
    """Wherever the process dies, the due instant has one row, and it is sent as the matrix says."""
    async with (
        RawServer(line.steps) as target,
        CrashingService(nursery, home) as service,
    ):
        await service.start(line.points[0])
        await _create(service.client, target, line)
        assert await service.ended() == KILLED
        for point in line.points[1:]:
            service.begin(point)
            assert await service.ended() == KILLED
        left = read_rows(service.home)
        if line.is_certain_on(home.kind):
            assert [row.status for row in left] == [line.left] * (line.left is not None)

        await service.start()
        row = await eventually(lambda: _ended(service))
        assert row.status == line.ends
        if line.is_certain_on(home.kind):
            assert [outcome for outcome, _ in row.outcomes] == [*line.outcomes]
            sent = whole(target.requests)
            assert sorted(number for _, number in sent.elements()) == [*line.arrived]
        await _judge(service, target)
        if left and left[0].status == "retrying" and line.steps is FAILS_ONCE:
            assert left[0].next_attempt_us is not None
            assert to_us(arrived_at(target.requests[-1])) >= left[0].next_attempt_us


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """A change that the API makes to the job ``job``, and how it shows afterwards.

    ``again`` is what the same request gets when it is repeated after the change is made, and
    ``keyed`` with the same Idempotency-Key.
    """

    path: str
    body: dict[str, object] | None = None
    method: str = "POST"
    station: str = "api"
    shows: str
    again: int = 200
    keyed: bool = False
    # A run of the job waits for its retry; or the paused job's instant has passed.
    waits: bool = False
    idles: bool = False

    @property
    def before(self) -> int:
        """Count the changes of its station that are made before it."""
        return 0 if self.station == "cancel" else PREPARED + self.waits


CALLS = {
    "create": Call(path="/api/v1/jobs", body={"job_id": "new"}, shows="new", again=409, keyed=True),
    "edit": Call(
        path="/api/v1/jobs", body={"job_id": "job", "name": "new name", "replace_existing": True},
        shows="new name",
    ),
    "pause": Call(path="/api/v1/jobs/job/pause", shows="paused"),
    "resume": Call(path="/api/v1/jobs/resting/resume", shows="resumed"),
    "delete": Call(path="/api/v1/jobs/job", method="DELETE", shows="deleted", again=404),
    "trigger": Call(path="/api/v1/jobs/job/trigger", shows="triggered", keyed=True),
    "cancel": Call(
        path="/api/v1/executions/{waiting}/cancel", station="cancel", shows="cancelled", waits=True,
    ),
    # The job and its row change together.
    "pause-retrying": Call(path="/api/v1/jobs/job/pause", shows="paused, row too", waits=True),
    "delete-retrying": Call(
        path="/api/v1/jobs/job", method="DELETE", shows="deleted, row too", again=404, waits=True,
    ),
    # What passed during a pause gets its row with the change.
    "resume-accounting": Call(
        path="/api/v1/jobs/resting/resume", shows="resumed, accounted", idles=True,
    ),
    "delete-accounting": Call(
        path="/api/v1/jobs/resting", method="DELETE", shows="deleted, accounted", again=404,
        idles=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("moment", [failpoint.BEFORE, failpoint.AFTER])
@pytest.mark.parametrize("name", CALLS)
async def test_a_death_on_the_way_of_a_request(
    home: Home, nursery: Nursery, name: str, moment: str
):
    """Before its commit a change leaves nothing, after it all of it; repeating it is safe."""
    call = CALLS[name]
    steps = (reply(status="503 Service Unavailable"),) if call.waits else OK
    async with RawServer(steps) as target, CrashingService(nursery, home) as service:
        await service.start(f"{call.station}.{moment}@{call.before + 1}")
        path = call.path.format(waiting=await _prepare(service, target, call))
        body = None if call.body is None else _job(target, **call.body)
        headers = KEY if call.keyed else {}

        async def ask(headers: dict[str, str]) -> httpx.Response:
            return await service.client.request(call.method, path, json=body, headers=headers)

        with pytest.raises(httpx.TransportError):
            await ask(headers)
        assert await service.ended() == KILLED

        await service.start()
        changed = moment == failpoint.AFTER
        assert await _shows(service, call.shows) is changed
        repeated = await ask(headers)
        assert repeated.status_code == (call.again if changed and not call.keyed else 200)
        assert await _shows(service, call.shows)
        if call.keyed:
            assert (await ask(headers)).json() == repeated.json()
        if name == "create":
            assert (await ask({})).status_code == 409
        await _judge(service, target)


@pytest.mark.parametrize(("moment", "kept"), [(failpoint.BEFORE, 3), (failpoint.AFTER, 0)])
async def test_a_death_while_history_is_pruned(
    home: Home, nursery: Nursery, moment: str, kept: int
):
    """A batch of old rows goes as a whole or not at all; the proof and the totals stand."""
    async with RawServer(OK) as target, CrashingService(nursery, home) as service:
        await service.start()
        job = _job(target, job_id="job", overlap_policy="allow")
        assert (await service.client.post("/api/v1/jobs", json=job)).status_code == 200
        for _ in range(3):
            assert (await service.client.post("/api/v1/jobs/job/trigger")).status_code == 200
        await eventually(
            lambda: [row.status for row in read_rows(service.home)] == ["completed"] * 3
        )
        await service.kill()
        service.begin(f"prune.{moment}")
        assert await service.ended() == KILLED
        assert len(read_rows(service.home)) == kept

        await service.start()
        found = (await service.client.get("/api/v1/jobs/job")).json()
        assert found["execution_count"] == 3
        assert (await service.client.get("/api/v1/ledger/verify")).json()["proven"]


async def _create(client: httpx.AsyncClient, target: RawServer, line: Line) -> None:
    retry = {"max_retries": 1, "retry_backoff_sec": line.wait} if line.steps is FAILS_ONCE else {}
    job = {
        **_job(target, job_id="once", on_crash=line.on_crash, **retry),
        "schedule_type": "date", "run_at": soon(0.1),
    }  # fmt: skip
    answer = await client.post("/api/v1/jobs", json=job)
    assert answer.status_code == 200, answer.text


def _job(target: RawServer, **fields: object) -> dict[str, object]:
    interval = {"schedule_type": "interval", "interval": {"hours": 1}}
    return {"target_url": target.url("/hook"), "timeout_sec": 1.5, **interval, **fields}


async def _prepare(service: CrashingService, target: RawServer, call: Call) -> str:
    """Make what a call changes; return the id of an execution that waits, where one does."""
    client = service.client
    passes = CLOCK.now() + PASSES_AFTER
    for job_id in ("job", "resting"):
        job = _job(target, job_id=job_id, max_retries=1, retry_backoff_sec=3600)
        if call.idles and job_id == "resting":
            job |= {"schedule_type": "date", "run_at": passes.isoformat()}
        assert (await client.post("/api/v1/jobs", json=job)).status_code == 200
    assert (await client.post("/api/v1/jobs/resting/pause")).status_code == 200
    if call.idles:
        await eventually(lambda: CLOCK.now() > passes)
    if not call.waits:
        return ""
    assert (await client.post("/api/v1/jobs/job/trigger")).status_code == 200

    def waits() -> str | None:
        return next((row.id for row in read_rows(service.home) if row.attempts), None)

    found: str = await eventually(waits)
    await eventually(lambda: read_rows(service.home)[0].status == "retrying")
    return found


async def _shows(service: CrashingService, what: str) -> bool:
    """Tell whether a change is there to be seen."""
    listed = (await service.client.get("/api/v1/jobs")).json()["jobs"]
    jobs = {job["job_id"]: job for job in listed}
    rows = [(row.cause, row.status, row.reason) for row in read_rows(service.home)]
    assert len(rows) <= 1
    shown: dict[str, bool] = {
        "new": "new" in jobs,
        "new name": jobs.get("job", {}).get("name") == "new name",
        "paused": jobs.get("job", {"next_run_time": ""})["next_run_time"] is None,
        "resumed": jobs.get("resting", {}).get("next_run_time") is not None,
        "deleted": "job" not in jobs,
        "triggered": [cause for cause, *_ in rows] == ["manual"],
        "cancelled": rows == [("manual", "cancelled", "user")],
    }
    return shown[what] if what in shown else _shows_whole(service, what, rows)


def _shows_whole(service: CrashingService, what: str, rows: list[Seen]) -> bool:
    """Tell whether a change and its row are there; fail if only one of them is."""
    states = dict(service.home.rows("SELECT id, state FROM jobs"))
    accounted = rows == [("schedule", "skipped", "paused")]
    parts = {
        "paused, row too": (states["job"] == "paused", rows == [("manual", "cancelled", "paused")]),
        "deleted, row too": (
            states["job"] == "deleted", rows == [("manual", "cancelled", "job_deleted")],
        ),
        "resumed, accounted": (states["resting"] == "finished", accounted),
        "deleted, accounted": (states["resting"] == "deleted", accounted),
    }  # fmt: skip
    job_changed, row_written = parts[what]
    assert job_changed is row_written, (states, rows)
    return job_changed


def _ended(service: CrashingService) -> Row | None:
    rows = read_rows(service.home)
    assert len(rows) <= 1
    return next((row for row in rows if row.status in ("completed", "unknown", "failed")), None)


async def _judge(service: CrashingService, target: RawServer) -> None:
    """The service's own proof and an independent one find nothing; nothing is left running."""

    def settled() -> bool:
        rows = read_rows(service.home)
        return all(row.status not in ("queued", "running") for row in rows)

    await eventually(settled)
    rows = read_rows(service.home)
    assert find_contradictions(rows, whole(target.requests)) == []
    proof = (await service.client.get("/api/v1/ledger/verify")).json()
    assert (proof["proven"], proof["overdue_count"]) == (True, 0), proof
