"""Use cases on jobs. Each is one transaction; what it answers is durable.

After the commit the change is announced (``JobChanged``), so that the window reads the job again,
and runs that became ready are handed to the dispatcher. A change first accounts for the instants of
the rule in force that are due already, so that no edit, pause or deletion swallows one.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import lru_cache

import uuid_utils.compat

from app.db.unit_of_work import Together, UnitOfWork, WriteConnection
from app.domain.clock import Clock, to_us
from app.domain.errors import (
    InvalidScheduleError,
    JobBrokenError,
    JobExistsError,
    JobNotFoundError,
    TargetRefusedError,
    TooManyWaitingError,
)
from app.domain.events import JobChanged
from app.domain.execution import (
    Cause,
    ExecutionStatus,
    NewExecution,
    Reason,
    WaitingRun,
)
from app.domain.ids import ExecutionId, JobId, random_execution_id
from app.domain.job import Change, Job, JobDefinition, JobState
from app.domain.policies import OverlapPolicy, job_slots
from app.domain.schedule import CronRule, CrontabRule, DateRule, Schedule
from app.engine.accounting import IdleSpan, account_due, account_idle, find_idle
from app.engine.publisher import Publisher
from app.engine.tick import QUEUE_MAX, room_to_wait
from app.engine.triggers import ScheduleTrigger, build_trigger, check_fires
from app.repositories import execution_repository, job_repository
from app.repositories.definition_codec import host_of
from app.repositories.new_job_repository import FirstJob, insert_new_jobs
from app.security.egress import EgressPolicy
from app.services.created_job import CreatedJob
from app.services.idempotency import RequestKey, answer_once, find_answer

_MICROSECOND = timedelta(microseconds=1)
_ORIGIN = re.compile(r"[^:/?#]*://[^/?#]*")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobServiceOptions:
    """What jobs may ask for."""

    # A one-off this little in the past still runs, at once; earlier ones are refused.
    date_grace: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewJob:
    """A request to create a job."""

    id: JobId
    definition: JobDefinition
    replace_existing: bool


@dataclass(frozen=True, slots=True)
class _Change:
    """What a transaction left to announce."""

    job: Job
    ready: Sequence[WaitingRun] = ()


class JobService:
    """Creates, reads, changes and triggers jobs.

    ``dispatch`` takes runs that wait for a worker from now on.
    """

    def __init__(
        self,
        *,
        unit_of_work: UnitOfWork,
        clock: Clock,
        publisher: Publisher,
        options: JobServiceOptions,
        dispatch: Callable[[Sequence[WaitingRun]], None],
        egress: EgressPolicy,
    ) -> None:
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._publisher = publisher
        self._options = options
        self._dispatch = dispatch
        # Many jobs call few hosts, and a URL's path makes no difference.
        self._judge_origin = lru_cache(maxsize=1024)(egress.judge_url)

    def new_id(self) -> JobId:
        """Make an id for a job that was sent without one."""
        return JobId(str(uuid_utils.compat.uuid7()))

    async def create(
        self, new: NewJob, *, actor: str | None, request_key: RequestKey | None = None
    ) -> CreatedJob:
        """Store a job, or replace one of the same id if that was asked for.

        A replaced job keeps history, counters and pause state; with an unchanged schedule it keeps
        its next run time too. A repeated ``request_key`` gets the first answer again. Raises
        ``InvalidScheduleError`` (malformed, never fires, a date in the past),
        ``TargetRefusedError``, ``JobExistsError``, ``IdempotencyKeyReusedError``.
        """
        known = await self._known_answer(request_key)
        if known is not None:
            return CreatedJob.load(known)
        verdict = self._judge_origin(_origin_of(new.definition.delivery.target.url))
        if not verdict.allowed:
            raise TargetRefusedError(verdict.why)
        now = self._clock.now()
        first = await self._first_instant(new.definition.schedule, now)
        job = _new_job(new.id, new.definition, first=first, now=now)
        if request_key is None and not new.replace_existing:
            unit = Together(insert_new_jobs, FirstJob(job, actor))
            if await self._unit_of_work.write(unit):
                return CreatedJob.of(self._announce(_Change(job)))
        changes: list[_Change] = []

        def store_once(connection: WriteConnection) -> str:
            def change() -> str:
                replacing = new.replace_existing
                changes.append(_store(connection, job, replacing=replacing, now=now, actor=actor))
                return CreatedJob.of(changes[0].job).dump()

            return answer_once(connection, request_key, change, now=now)

        answer = await self._unit_of_work.write(store_once)
        for change in changes:
            self._announce(change)
        return CreatedJob.load(answer)

    async def get(self, job_id: JobId) -> Job:
        """Read one job. Raises ``JobNotFoundError``."""
        found = await self._unit_of_work.read(
            lambda connection: job_repository.find_job(connection, job_id)
        )
        if found is None:
            raise JobNotFoundError(job_id)
        return found

    async def delete(self, job_id: JobId, *, actor: str | None) -> Job:
        """Delete a job: no new attempt starts; its history stays. Raises ``JobNotFoundError``."""
        now = self._clock.now()

        def delete(connection: WriteConnection) -> _Change:
            existing = _existing(connection, job_id)
            return _retire(
                connection, existing, JobState.DELETED, reason=Reason.JOB_DELETED, now=now,
                actor=actor,
            )  # fmt: skip

        return self._announce(await self._unit_of_work.write(delete))

    async def pause(self, job_id: JobId, *, actor: str | None) -> Job:
        """Pause a job: waiting executions are cancelled, those under way end.

        A job that is paused, finished or broken stays as it is. Raises ``JobNotFoundError``.
        """
        now = self._clock.now()

        def pause(connection: WriteConnection) -> _Change:
            existing = _existing(connection, job_id)
            if existing.state is not JobState.ACTIVE:
                return _Change(existing)
            return _retire(
                connection, existing, JobState.PAUSED, reason=Reason.PAUSED, now=now, actor=actor
            )

        return self._announce(await self._unit_of_work.write(pause))

    async def resume(self, job_id: JobId, *, actor: str | None) -> Job:
        """Resume a paused job at its next instant from now; nothing paused is replayed.

        The instants that passed meanwhile are accounted as skipped. A job that is not paused stays
        as it is. Raises ``JobNotFoundError``.
        """
        while True:
            paused = await self.get(job_id)
            if paused.state is not JobState.PAUSED:
                return paused
            now = self._clock.now()
            span = await asyncio.to_thread(find_idle, paused, now=max(now, paused.cursor))

            def resume(
                connection: WriteConnection,
                *,
                seen: Job = paused,
                span: IdleSpan = span,
                now: datetime = now,
            ) -> _Change | None:
                existing = _existing(connection, job_id)
                if existing.revision != seen.revision:
                    return None
                return _resume(connection, existing, span, now=now, actor=actor)

            change = await self._unit_of_work.write(resume)
            if change is not None:
                return self._announce(change)

    async def trigger(self, job_id: JobId, *, request_key: RequestKey | None = None) -> ExecutionId:
        """Run a job now, once more: its schedule and state stay as they are.

        The run waits for a free slot of its job instead of being skipped. A repeated
        ``request_key`` gets the first run's id again. Raises ``JobNotFoundError``,
        ``JobBrokenError``, ``TooManyWaitingError``, ``IdempotencyKeyReusedError``.
        """
        now = self._clock.now()
        queued: list[WaitingRun] = []

        def trigger(connection: WriteConnection) -> str:
            existing = _existing(connection, job_id)
            definition = existing.definition
            if definition is None:
                raise JobBrokenError(job_id)
            _check_room(connection, job_id)
            row = _manual_run(existing, definition, now)
            execution_repository.insert_executions(connection, [row], now_us=to_us(now))
            queued.append(
                WaitingRun(
                    id=row.id,
                    job_id=job_id,
                    host=host_of(definition.delivery.target.url),
                    next_attempt_at=now,
                    job_slots=job_slots(definition.policy),
                )
            )
            return row.id

        answer = await self._unit_of_work.write(
            lambda connection: answer_once(
                connection, request_key, lambda: trigger(connection), now=now
            )
        )
        self._dispatch(queued)
        return ExecutionId(answer)

    async def _known_answer(self, request_key: RequestKey | None) -> str | None:
        """Look a repeated request up before it is judged: what was valid then may be past now."""
        if request_key is None:
            return None
        now = self._clock.now()
        return await self._unit_of_work.read(
            lambda connection: find_answer(connection, request_key, now=now)
        )

    def _announce(self, change: _Change) -> Job:
        self._publisher.publish(JobChanged(job_id=change.job.id))
        if change.ready:
            self._dispatch(change.ready)
        return change.job

    async def _first_instant(self, schedule: Schedule, now: datetime) -> datetime:
        """Find a schedule's first instant, off the loop where that may take milliseconds."""
        if isinstance(schedule.rule, CronRule | CrontabRule):
            return await asyncio.to_thread(_check_schedule, schedule, now)
        if isinstance(schedule.rule, DateRule):
            return self._check_date(schedule, schedule.rule, now)
        return _check_schedule(schedule, now)

    def _check_date(self, schedule: Schedule, rule: DateRule, now: datetime) -> datetime:
        if rule.run_at < now - self._options.date_grace:
            raise InvalidScheduleError(
                "run_at lies in the past, so the job would never run; give a time to come "
                "(a time without an offset is read in the job's timezone)"
            )
        return check_fires(
            build_trigger(schedule, anchor=now), after=min(now, rule.run_at - _MICROSECOND)
        )


def _origin_of(url: str) -> str:
    found = _ORIGIN.match(url)
    return url if found is None else found.group()


def _check_schedule(schedule: Schedule, now: datetime) -> datetime:
    return check_fires(build_trigger(schedule, anchor=now), after=now)


def _new_job(job_id: JobId, definition: JobDefinition, *, first: datetime, now: datetime) -> Job:
    return Job(
        id=job_id,
        revision=1,
        definition=definition,
        state=JobState.ACTIVE,
        state_reason=None,
        # A one-off a moment ago is still due, so the cursor begins before it.
        anchor=min(now, first - _MICROSECOND),
        clock_epoch=0,
        cursor=min(now, first - _MICROSECOND),
        next_run_time=first,
        execution_count=0,
        created_at=now,
        updated_at=now,
    )


def _existing(connection: WriteConnection, job_id: JobId) -> Job:
    found = job_repository.find_job_for_change(connection, job_id)
    if found is None or found.state is JobState.DELETED:
        raise JobNotFoundError(job_id)
    return found


def _store(
    connection: WriteConnection, job: Job, *, replacing: bool, now: datetime, actor: str | None
) -> _Change:
    existing = job_repository.find_job_for_change(connection, job.id)
    if existing is None:
        (is_new,) = insert_new_jobs(connection, [FirstJob(job, actor)])
        if is_new:
            return _Change(job)
        # Another replica has stored one of this id in this very moment.
        existing = job_repository.find_job_for_change(connection, job.id)
        assert existing is not None, "its id is known, and ids stay"
    if existing.state is JobState.DELETED:
        return _revive(connection, existing, job, actor=actor)
    if not replacing:
        raise JobExistsError(job.id)
    return _replace(connection, existing, job, now=now, actor=actor)


def _revive(connection: WriteConnection, tombstone: Job, job: Job, *, actor: str | None) -> _Change:
    """Store a job under the id of a deleted one: a fresh job, with instants of its own."""
    revived = replace(job, revision=tombstone.revision + 1, clock_epoch=tombstone.clock_epoch + 1)
    job_repository.save_job(
        connection, revived, Change.CREATED, accounted=tombstone.cursor, actor=actor
    )
    return _Change(revived)


def _replace(
    connection: WriteConnection, existing: Job, job: Job, *, now: datetime, actor: str | None
) -> _Change:
    """Put a new definition in the place of an old one, whose instants are accounted up to now.

    "Now" is never before the cursor, wherever the clock stands: what has a row has it once.
    """
    moment = max(now, existing.cursor)
    ready, accounted = _account(connection, existing, moment=moment, now=now)
    kept = replace(
        job,
        revision=existing.revision + 1,
        clock_epoch=existing.clock_epoch,
        cursor=moment,
        execution_count=existing.execution_count,
        created_at=existing.created_at,
    )
    kept = _place(connection, existing, kept, moment=moment)
    if existing.state is JobState.PAUSED:
        kept = replace(kept, state=JobState.PAUSED, next_run_time=None)
    elif kept.next_run_time is None:
        kept = replace(kept, state=JobState.FINISHED)
    job_repository.save_job(connection, kept, Change.EDITED, accounted=accounted, actor=actor)
    return _Change(kept, ready)


def _account(
    connection: WriteConnection, existing: Job, *, moment: datetime, now: datetime
) -> tuple[list[WaitingRun], datetime]:
    """Write the rows of what a changing job's rule named up to ``moment``.

    Return what is queued, and how far the rule is accounted for: a finished one has no more.
    """
    ready = account_due(connection, existing, now=moment)
    account_idle(connection, existing, find_idle(existing, now=moment), now=now)
    return ready, existing.cursor if existing.state is JobState.FINISHED else moment


def _place(connection: WriteConnection, existing: Job, kept: Job, *, moment: datetime) -> Job:
    """Find where a replaced job's schedule goes on.

    An unchanged schedule keeps its anchor. A new one begins at once: if its first instant lies
    before what is accounted (a one-off set a moment into the past; a clock that was set back),
    its instants belong to a new epoch.
    """
    old, new = existing.definition, kept.definition
    if old is not None and new is not None and old.schedule == new.schedule:
        kept = replace(kept, anchor=existing.anchor)
        return replace(kept, next_run_time=_trigger_of(kept).next_after(moment))
    if kept.next_run_time is None or kept.next_run_time > moment:
        return kept
    begin = _begin(connection, kept)
    if begin >= moment:
        return replace(kept, next_run_time=_trigger_of(kept).next_after(moment))
    return replace(
        kept,
        clock_epoch=existing.clock_epoch + 1,
        cursor=begin,
        next_run_time=_trigger_of(kept).next_after(begin),
    )


def _begin(connection: WriteConnection, job: Job) -> datetime:
    """Tell after what a new rule begins; a cron rule runs nothing again that has a row."""
    assert job.definition is not None, "a replaced job has its new definition"
    if not isinstance(job.definition.schedule.rule, CronRule | CrontabRule):
        return job.anchor
    last = execution_repository.last_accounted(connection, job.id)
    return job.anchor if last is None else max(job.anchor, last)


def _retire(
    connection: WriteConnection,
    existing: Job,
    state: JobState,
    *,
    reason: Reason,
    now: datetime,
    actor: str | None,
) -> _Change:
    """Pause or delete: what is due is accounted, what waits is cancelled, what runs is the last."""
    moment = max(now, existing.cursor)
    _, accounted = _account(connection, existing, moment=moment, now=now)
    now_us = to_us(now)
    execution_repository.cancel_waiting(connection, existing.id, reason=reason, now_us=now_us)
    execution_repository.stop_running(connection, existing.id, reason=reason)
    retired = replace(
        existing,
        revision=existing.revision + 1,
        state=state,
        next_run_time=None,
        cursor=moment,
        updated_at=now,
    )
    change = Change.PAUSED if state is JobState.PAUSED else Change.DELETED
    job_repository.save_state(connection, retired, change, accounted=accounted, actor=actor)
    return _Change(retired)


def _resume(
    connection: WriteConnection,
    existing: Job,
    span: IdleSpan,
    *,
    now: datetime,
    actor: str | None,
) -> _Change:
    account_idle(connection, existing, span, now=now)
    resumed = replace(
        existing,
        revision=existing.revision + 1,
        state=JobState.FINISHED if span.next_run_time is None else JobState.ACTIVE,
        next_run_time=span.next_run_time,
        cursor=max(now, existing.cursor),
        updated_at=now,
    )
    job_repository.save_state(
        connection, resumed, Change.RESUMED, accounted=resumed.cursor, actor=actor
    )
    return _Change(resumed)


def _trigger_of(job: Job) -> ScheduleTrigger:
    assert job.definition is not None, "only readable jobs have a trigger"
    return build_trigger(job.definition.schedule, anchor=job.anchor)


def _check_room(connection: WriteConnection, job_id: JobId) -> None:
    """Refuse one more execution of a job of which too many wait."""
    open_runs = execution_repository.count_open(connection, [job_id])
    if job_id in open_runs and not room_to_wait(open_runs[job_id]):
        raise TooManyWaitingError(job_id, QUEUE_MAX)


def _manual_run(job: Job, definition: JobDefinition, now: datetime) -> NewExecution:
    policy = definition.policy
    return NewExecution(
        id=random_execution_id(),
        job_id=job.id,
        job_revision=job.revision,
        clock_epoch=job.clock_epoch,
        cause=Cause.MANUAL,
        scheduled_for=now,
        status=ExecutionStatus.QUEUED,
        next_attempt_at=now,
        exclusive=policy.max_instances == 1 and policy.overlap is not OverlapPolicy.ALLOW,
    )
