"""The use case that explains: why a job did, did not, will or will not run at a time.

All facts are read in one snapshot; the rule, which may take milliseconds, is followed in a thread;
what it all means is judged by ``engine/explanation.py``.
"""

import asyncio
from dataclasses import dataclass
from datetime import datetime, timedelta

from app.db.unit_of_work import ReadConnection, UnitOfWork
from app.domain.clock import Clock
from app.domain.errors import JobNotFoundError
from app.domain.execution import Cause, ExecutionStatus, Reason
from app.domain.ids import ExecutionId, JobId
from app.domain.job import Change, JobState
from app.domain.policies import job_slots
from app.domain.revision import LedgerEntry, Revision, Standing
from app.domain.schedule import Schedule
from app.engine.explanation import (
    Downtime,
    DowntimeKind,
    Explanation,
    Findings,
    Pause,
    Surroundings,
    Wait,
    WaitKind,
    explain,
)
from app.engine.rule_match import Asked, RuleMatch, match_rule
from app.repositories import revision_repository, service_event_repository
from app.repositories.service_event_repository import ServiceEventKind

# Revisions whose clock epochs may have rows of one time: more only if the clock was set back often.
_REVISIONS_MAX = 8
# Other runs are told of that were wanted this close to the asked time, and so many at most.
_ABOUT = timedelta(minutes=1)
_OTHERS_MAX = 10
_EVENTS_MAX = 50


@dataclass(frozen=True, slots=True, kw_only=True)
class ExplainOptions:
    """The limits on what runs at once, as the dispatcher has them."""

    concurrency: int
    host_concurrency: int


class ExplainService:
    """Explains single due times of jobs; reads only."""

    def __init__(self, *, unit_of_work: UnitOfWork, clock: Clock, options: ExplainOptions) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._options = options

    def now(self) -> datetime:
        """Tell the time that is asked about when none is given."""
        return self._clock.now()

    async def schedule_of(self, job_id: JobId) -> Schedule | None:
        """Tell by which schedule's zone and rules of clock changes a local time is to be read.

        None if the present one cannot be read. Raises ``JobNotFoundError``.
        """

        def read(connection: ReadConnection) -> Revision | None:
            standing = _standing(connection, job_id)
            return revision_repository.find_revision(connection, job_id, standing.revision)

        revision = await self._unit_of_work.read(read)
        return None if revision is None else revision.schedule

    async def explain(self, job_id: JobId, asked: Asked) -> Explanation:
        """Explain what became, or will become, of an asked time; deleted jobs' past stays known.

        Raises ``JobNotFoundError``.
        """
        now = self._clock.now()
        findings = await self._unit_of_work.read(
            lambda connection: _read(connection, job_id, asked, now=now, options=self._options)
        )
        match = await asyncio.to_thread(_match, findings)
        return explain(findings, match)


def _match(findings: Findings) -> RuleMatch | None:
    # Of a job that did not exist yet, its first rule tells what was to come.
    revision = findings.revision or findings.created
    floor = findings.created.since
    return match_rule(revision, findings.asked, job_id=findings.standing.id, floor=floor)


def _standing(connection: ReadConnection, job_id: JobId) -> Standing:
    standing = revision_repository.find_standing(connection, job_id)
    if standing is None:
        raise JobNotFoundError(job_id)
    return standing


def _read(
    connection: ReadConnection,
    job_id: JobId,
    asked: Asked,
    *,
    now: datetime,
    options: ExplainOptions,
) -> Findings:
    standing = _standing(connection, job_id)
    before = revision_repository.revisions_before(
        connection, job_id, asked.end, limit=_REVISIONS_MAX
    )
    epochs = {revision.clock_epoch for revision in before}
    span = {"begin": asked.begin, "end": asked.end}
    entries = revision_repository.due_entries(connection, job_id, epochs, **span)
    stretches = revision_repository.stretches_over(connection, job_id, epochs, **span)
    revision = before[0] if before else None
    entry = entries[0] if entries else (stretches[0] if stretches else None)
    if entries and revision is not None and revision.number != entries[0].execution.job_revision:
        number = entries[0].execution.job_revision
        revision = revision_repository.find_revision(connection, job_id, number) or revision
    return Findings(
        standing=standing,
        asked=asked,
        now=now,
        revision=revision,
        created=_created(connection, job_id, revision),
        entries=tuple(entries),
        stretches=tuple(stretches),
        around=_around(
            connection, standing, revision, entry, asked=asked, now=now, options=options
        ),
    )


def _created(connection: ReadConnection, job_id: JobId, revision: Revision | None) -> Revision:
    """Find the revision that began the job's life, of the several it may have had."""
    found = None
    if revision is not None:
        found = revision_repository.last_change(
            connection, job_id, upto=revision.number, changes=[Change.CREATED]
        )
    found = found or revision_repository.first_revision(connection, job_id)
    assert found is not None, "a job is stored with its first revision"
    return found


def _around(
    connection: ReadConnection,
    standing: Standing,
    revision: Revision | None,
    entry: LedgerEntry | None,
    *,
    asked: Asked,
    now: datetime,
    options: ExplainOptions,
) -> Surroundings:
    job_id = standing.id
    execution = None if entry is None else entry.execution
    status = None if execution is None else execution.status
    overlapped = entry is not None and entry.execution.reason is Reason.OVERLAP
    return Surroundings(
        pause=_pause(connection, job_id, revision, entry),
        downtime=None if entry is None else _downtime(connection, entry, asked),
        wait=_wait(connection, entry, now=now, options=options)
        if entry is not None and status is ExecutionStatus.QUEUED
        else None,
        overlap=_overlap(connection, entry) if entry is not None and overlapped else None,
        merged_into=revision_repository.find_merged_into(connection, entry)
        if entry is not None and entry.execution.reason is Reason.COALESCED
        else None,
        ended_by=_deletion(connection, job_id, revision, entry),
        changed=None
        if revision is None
        else revision_repository.first_of_other_schedule(connection, job_id, after=revision.number),
        others=tuple(
            revision_repository.others_about(
                connection,
                job_id,
                begin=asked.begin - _ABOUT,
                end=asked.end + _ABOUT,
                limit=_OTHERS_MAX,
            )
        ),
    )


def _pause(
    connection: ReadConnection, job_id: JobId, revision: Revision | None, entry: LedgerEntry | None
) -> Pause | None:
    if revision is None:
        return None
    began = None
    if revision.state is JobState.PAUSED:
        began = revision_repository.last_change(
            connection, job_id, upto=revision.number, changes=[Change.PAUSED]
        )
    elif entry is not None and entry.execution.reason is Reason.PAUSED:
        began = revision_repository.first_of_state(
            connection, job_id, after=revision.number, state=JobState.PAUSED
        )
    if began is None:
        return None
    ended = revision_repository.first_of_other_state(
        connection, job_id, after=began.number, state=JobState.PAUSED
    )
    return Pause(began=began, ended=ended)


def _deletion(
    connection: ReadConnection, job_id: JobId, revision: Revision | None, entry: LedgerEntry | None
) -> Revision | None:
    """Find the change that deleted the job, where the answer is about that."""
    if revision is None:
        return None
    if revision.state is JobState.DELETED:
        return revision
    if entry is not None and entry.execution.reason is Reason.JOB_DELETED:
        return revision_repository.first_of_state(
            connection, job_id, after=revision.number, state=JobState.DELETED
        )
    return None


def _overlap(connection: ReadConnection, entry: LedgerEntry) -> ExecutionId | None:
    """Find the other execution: the one in the way, or the one it made way for."""
    if entry.execution.status is ExecutionStatus.CANCELLED:
        return revision_repository.find_successor(connection, entry)
    return revision_repository.find_in_the_way(connection, entry)


def _downtime(connection: ReadConnection, entry: LedgerEntry, asked: Asked) -> Downtime | None:
    """Find the span without the service in which the instant fell, if the row was written late."""
    execution = entry.execution
    late = execution.status is ExecutionStatus.MISSED or execution.cause is Cause.CATCH_UP
    if not late and execution.reason is not Reason.COALESCED:
        return None
    due = execution.scheduled_for if execution.instant_count == 1 else asked.begin
    start = service_event_repository.first_start_after(connection, due)
    if start is not None and start.since is not None and start.since <= due:
        return Downtime(kind=DowntimeKind.STOPPED, begin=start.since, end=start.at)
    for event in service_event_repository.events_between(
        connection, due, entry.born_at, limit=_EVENTS_MAX
    ):
        jumped = event.kind is ServiceEventKind.CLOCK_SET_FORWARD
        if jumped and event.since is not None and event.since <= due:
            kind = DowntimeKind.CLOCK_SET_FORWARD
            return Downtime(kind=kind, begin=event.since, end=event.at)
    return None


def _wait(
    connection: ReadConnection, entry: LedgerEntry, *, now: datetime, options: ExplainOptions
) -> Wait:
    """Tell what a queued execution waits for, the nearest cause first."""
    execution = entry.execution
    if execution.next_attempt_at is not None and execution.next_attempt_at > now:
        return Wait(kind=WaitKind.NOT_BEFORE, until=execution.next_attempt_at)
    revision = revision_repository.find_revision(
        connection, execution.job_id, execution.job_revision
    )
    running = revision_repository.running_of_job(connection, execution.job_id)
    policy = None if revision is None else revision.policy
    slots = None if policy is None else job_slots(policy)
    if slots is not None and len(running) >= slots:
        return Wait(kind=WaitKind.JOB_SLOT, behind=running[0])
    by_host = revision_repository.running_by_host(connection)
    if by_host.total() >= options.concurrency:
        return Wait(kind=WaitKind.ANY_SLOT)
    host = revision_repository.host_of_revision(
        connection, execution.job_id, execution.job_revision
    )
    if host is not None and by_host[host] >= options.host_concurrency:
        return Wait(kind=WaitKind.HOST_SLOT)
    return Wait(kind=WaitKind.TURN)
