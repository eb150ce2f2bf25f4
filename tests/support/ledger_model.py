"""What the ledger must say, from what the user asked and what the clock showed; and a judge.

The model knows nothing of the engine's cursors, epochs and revisions. It keeps a list of spans per
job (from when to when which rule was in force, running or paused), walks the rule through each of
them one instant at a time, and the judge lays the rows of the table beside that.

A job's clock epoch counts what makes instants of equal time different ones: the job was made again
after a deletion, a date was moved into the past, the clock was set back.
"""

import base64
import hashlib
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

from app.domain.clock import from_us, to_us
from app.domain.schedule import CronRule, CrontabRule, DateRule, IntervalRule, Schedule
from app.engine.triggers import ScheduleTrigger, build_trigger

_MICROSECOND = timedelta(microseconds=1)
# As GUARANTEES.md, I11: smaller steps of the clock are waited out.
TOLERANCE = timedelta(seconds=5)
VOID_REASONS = {"gap": "dst_gap", "fold": "dst_fold"}
_ROWS = """
    SELECT id, job_id, clock_epoch, scheduled_us, until_us, instant_count, status, reason, attempts
    FROM executions WHERE cause IN ('schedule', 'catch_up')
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of a due instant or of a stretch of them, in microseconds as stored."""

    id: str
    job_id: str
    epoch: int
    first: int
    until: int | None
    count: int
    status: str
    reason: str | None
    attempts: int

    @property
    def last(self) -> int:
        """Tell the latest instant the row stands for."""
        return self.first if self.until is None else self.until


def read_rows(read: Callable[[str], list[Any]]) -> list[Row]:
    """Read the rows of all due instants, by ``read``, which runs plain SQL."""
    return [
        Row(
            id=execution_id,
            job_id=job_id,
            epoch=epoch,
            first=first,
            until=until,
            count=count,
            status=status,
            reason=reason,
            attempts=attempts,
        )
        for execution_id, job_id, epoch, first, until, count, status, reason, attempts in read(
            _ROWS
        )
    ]


@dataclass(slots=True, kw_only=True)
class Span:
    """A rule in force after one instant, up to ``end`` or, still in force, up to ``seen``."""

    epoch: int
    life: int
    trigger: ScheduleTrigger
    after: datetime
    seen: datetime
    paused: bool
    end: datetime | None = None
    _known: list[int] = field(default_factory=list)

    @property
    def until(self) -> datetime:
        """Tell how far the span's instants are due."""
        if self.end is not None:
            return self.end
        return self.after if self.paused else max(self.after, self.seen)

    @property
    def cursor(self) -> datetime:
        """Tell the latest moment up to which all is settled: the last instant, or the begin."""
        due = self.due(self.until)
        return from_us(due[-1]) if due else self.after

    def due(self, until: datetime) -> list[int]:
        """Walk the rule to ``until``, and remember how far it is walked."""
        last = from_us(self._known[-1]) if self._known else self.after
        instant = self.trigger.next_after(last)
        while instant is not None and instant <= until:
            self._known.append(to_us(instant))
            instant = self.trigger.next_after(instant)
        return self._known[: bisect_right(self._known, to_us(until))]

    def void(self) -> list[tuple[int, str]]:
        """List the local times without an instant, with the reason their rows must have."""
        if self.paused:
            return []
        until = self.cursor if self.end is None else self.end
        found = self.trigger.left_out(self.after, until)
        return [(to_us(void.at), VOID_REASONS[void.kind]) for void in found]


@dataclass(slots=True, kw_only=True)
class JobModel:
    """One job, over all its lives."""

    id: str
    schedule: Schedule
    anchor: datetime
    epoch: int = 0
    life: int = 0
    deleted: bool = False
    spans: list[Span] = field(default_factory=list)

    @property
    def span(self) -> Span:
        """The span in force, or the last one of a deleted job."""
        return self.spans[-1]

    @property
    def paused(self) -> bool:
        """Tell whether the job is paused."""
        return self.span.paused and not self.deleted

    @property
    def next_time(self) -> datetime | None:
        """Tell the next instant; None for a job that is paused, finished or deleted."""
        if self.deleted or self.span.paused:
            return None
        return self.span.trigger.next_after(self.span.cursor)

    @property
    def finished(self) -> bool:
        """Tell whether a job that is neither paused nor deleted has no instant left."""
        return not self.deleted and not self.span.paused and self.next_time is None

    @property
    def state(self) -> str:
        """Name the state as the table does."""
        if self.deleted:
            return "deleted"
        if self.paused:
            return "paused"
        return "active" if self.next_time is not None else "finished"

    def begin(self, now: datetime, *, after: datetime, paused: bool) -> None:
        """Begin a span."""
        trigger = build_trigger(self.schedule, anchor=self.anchor)
        self.spans.append(
            Span(
                epoch=self.epoch,
                life=self.life,
                trigger=trigger,
                after=after,
                seen=now,
                paused=paused,
            )
        )

    def end(self, now: datetime) -> datetime:
        """End the span in force at a change; return where the next one begins.

        A clock that stands behind what has its row already counts from there.
        """
        cursor = self.span.cursor
        moment = max(now, cursor)
        self.span.end = cursor if self.finished else moment
        return moment


class LedgerModel:
    """All jobs as the user saw them; each method is an answered request or a fact of the clock."""

    def __init__(self) -> None:
        self.jobs: dict[str, JobModel] = {}

    def see(self, now: datetime, *, rows: Sequence[Row], latest: datetime) -> None:
        """Note that the service had nothing left to do at ``now``.

        It may have gone farther before the clock was set back: up to its rows, but not beyond the
        ``latest`` that the clock has shown.
        """
        for job in self.jobs.values():
            if not job.deleted:
                own = [row for row in rows if row.job_id == job.id and row.epoch == job.epoch]
                job.span.seen = max(job.span.seen, now, min(_latest(now, own), latest))

    def put(self, job_id: str, schedule: Schedule, *, now: datetime, rows: Sequence[Row]) -> None:
        """A job was created, or replaced; ``rows`` are all there are.

        A new rule begins now, wherever its predecessor stands, a cron rule behind what has a row.
        """
        job = self.jobs.get(job_id)
        if job is None or job.deleted:
            self._create(job, job_id, schedule, now=now)
            return
        paused, same = job.paused, job.schedule == schedule
        moment = job.end(now)
        job.schedule = schedule
        if not same:
            job.anchor = begin = _anchor(schedule, now)
            first = build_trigger(schedule, anchor=begin).next_after(begin)
            if isinstance(schedule.rule, CronRule | CrontabRule):
                own = [row for row in rows if row.job_id == job_id and row.epoch <= job.epoch]
                begin = _latest(begin, own)
            if first is not None and first <= moment and begin < moment:
                job.epoch += 1
                moment = begin
        job.begin(now, after=moment, paused=paused)

    def pause(self, job_id: str, *, now: datetime) -> None:
        """A job was paused."""
        job = self.jobs[job_id]
        if not job.paused:
            job.begin(now, after=job.end(now), paused=True)

    def resume(self, job_id: str, *, now: datetime) -> None:
        """A job was resumed."""
        job = self.jobs[job_id]
        if job.paused:
            job.begin(now, after=job.end(now), paused=False)

    def delete(self, job_id: str, *, now: datetime) -> None:
        """A job was deleted."""
        job = self.jobs[job_id]
        job.end(now)
        job.deleted = True

    def set_back(self, now: datetime, *, step: timedelta, rows: Sequence[Row]) -> None:
        """The service found the clock set back by ``step`` to ``now``; ``rows`` are all there are.

        What lies ahead begins anew: an interval with the rest of its period, a cron rule behind
        the last instant that has a row, a date not at all.
        """
        for job in self.jobs.values():
            if job.deleted or job.finished:
                continue
            own = [row for row in rows if row.job_id == job.id and row.epoch <= job.epoch]
            cursor = _latest(job.span.cursor, [row for row in own if row.epoch == job.epoch])
            rule, after = job.schedule.rule, now
            if isinstance(rule, CronRule | CrontabRule):
                after = _latest(now, own)
            if isinstance(rule, DateRule) or after >= cursor:
                job.span.seen = max(job.span.seen, cursor)
                continue
            if isinstance(rule, IntervalRule):
                job.anchor -= step
            paused = job.paused
            job.span.end = cursor
            job.epoch += 1
            job.begin(now, after=after, paused=paused)

    def _create(
        self, old: JobModel | None, job_id: str, schedule: Schedule, *, now: datetime
    ) -> None:
        job = JobModel(id=job_id, schedule=schedule, anchor=_anchor(schedule, now))
        if old is not None:
            job = replace(job, epoch=old.epoch + 1, life=old.life + 1, spans=old.spans)
        job.begin(now, after=job.anchor, paused=False)
        self.jobs[job_id] = job


def _latest(moment: datetime, rows: Sequence[Row]) -> datetime:
    return max([moment, *(from_us(row.last) for row in rows)])


def _anchor(schedule: Schedule, now: datetime) -> datetime:
    """Tell what lies just before a new rule's first instant: a date may be a moment ago."""
    if isinstance(schedule.rule, DateRule):
        return min(now, schedule.rule.run_at - _MICROSECOND)
    return now


class Judge:
    """Compares the rows with a model. ``settled``: nothing is left to do at the moment."""

    def __init__(self, model: LedgerModel) -> None:
        self._model = model

    def check(self, rows: Sequence[Row], *, now: datetime, settled: bool) -> None:
        """Assert L1 and L2, that ids are what receivers were promised, and the reasons of pauses.

        ``now`` is the latest the clock has shown; while the service is not settled rows may be
        missing, but none may be wrong.
        """
        jobs = {row.job_id for row in rows}
        assert jobs <= set(self._model.jobs), "rows of a job nobody made"
        by_job = {
            job_id: list(found)
            for job_id, found in groupby(
                sorted(rows, key=lambda row: (row.job_id, row.epoch, row.first)),
                key=lambda row: row.job_id,
            )
        }
        for job in self._model.jobs.values():
            self._check_job(job, by_job.get(job.id, []), now=now, settled=settled)

    def _check_job(self, job: JobModel, rows: list[Row], *, now: datetime, settled: bool) -> None:
        void = [row for row in rows if row.reason in VOID_REASONS.values()]
        due = [row for row in rows if row.reason not in VOID_REASONS.values()]
        epochs = {span.epoch for span in job.spans}
        assert {row.epoch for row in rows} <= epochs, f"{job.id}: rows of an epoch nobody began"
        for epoch in sorted(epochs):
            spans = [span for span in job.spans if span.epoch == epoch]
            where = f"{job.id}, epoch {epoch}"
            _check_tiling(where, spans, [r for r in due if r.epoch == epoch], now, settled=settled)
            _check_void(where, spans, [r for r in void if r.epoch == epoch], settled=settled)
        for row in rows:
            digest = hashlib.sha256(f"{row.job_id}|{row.epoch}|{row.first}".encode()).digest()
            named = "exe_" + base64.b32encode(digest).decode().lower()[:24]
            assert row.id == named, f"{row} is not named after its instant"
        _check_run_once(job, rows)


def _check_tiling(
    where: str, spans: Sequence[Span], rows: Sequence[Row], now: datetime, *, settled: bool
) -> None:
    """Lay rows over instants in order: each instant under exactly one row, each row over some."""
    expected = [(us, span.paused) for span in spans for us in span.due(span.until)]
    least = len(expected)
    if not settled and spans[-1].end is None and not spans[-1].paused:
        tail = spans[-1].due(max(now, spans[-1].until))
        expected += [(us, False) for us in tail[len(spans[-1].due(spans[-1].until)) :]]
    place = 0
    for row in rows:
        covered = expected[place : place + row.count]
        if not covered or covered[0][0] != row.first:
            missing = expected[place][0] if place < len(expected) else None
            raise AssertionError(f"{where}: expected {_show(missing)} next, found {_tell(row)}")
        assert len(covered) == row.count, f"{where}: not so many instants: {_tell(row)}"
        assert covered[-1][0] == row.last, f"{where}: covers other instants: {_tell(row)}"
        paused = {was_paused for _, was_paused in covered}
        said = row.status == "skipped" and row.reason == "paused"
        assert paused == {said}, f"{where}: a pause and its reason differ: {_tell(row)}"
        place += row.count
    assert place >= least, f"{where}: no row for {_show(expected[place][0])}"


def _check_void(where: str, spans: Sequence[Span], rows: Sequence[Row], *, settled: bool) -> None:
    expected = sorted(void for span in spans for void in span.void())
    if not settled:
        return
    found: list[tuple[int, str]] = []
    for row in sorted(rows, key=lambda row: row.first):
        assert row.status == "skipped", f"{where}: {_tell(row)}"
        covered = [us for us, why in expected if row.first <= us <= row.last and why == row.reason]
        assert len(covered) == row.count, f"{where}: not so many void times: {_tell(row)}"
        found += [(us, str(row.reason)) for us in covered]
    assert sorted(found) == expected, f"{where}: void times {expected} have rows {found}"


def _check_run_once(job: JobModel, rows: Sequence[Row]) -> None:
    """No instant of a cron rule runs in two epochs of one life of its job."""
    started = {(row.epoch, row.first) for row in rows if row.attempts}
    ran: set[tuple[int, int]] = set()
    for span in job.spans:
        if isinstance(span.trigger.schedule.rule, CronRule | CrontabRule):
            due = set(span.due(span.until))
            here = {(span.life, us) for epoch, us in started if epoch == span.epoch and us in due}
            assert not ran & here, f"{job.id}: instants ran in two epochs: {ran & here}"
            ran |= here


def _tell(row: Row) -> str:
    until = "" if row.until is None else f" … {_show(row.until)}, {row.count} in all"
    return f"{_show(row.first)}{until} ({row.status}, {row.reason})"


def _show(us: int | None) -> str:
    return "nothing" if us is None else from_us(us).isoformat()
