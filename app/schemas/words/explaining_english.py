"""Explanations in English: "It did not run: due …, the run before it was not over yet".

One function for each verdict, and for each reason of a run that did not start. Imports the story
and the writers of schedules; called by ``explaining.py``.
"""

from collections.abc import Callable
from datetime import datetime

from app.domain.execution import Cause, Execution, Reason
from app.domain.revision import Revision
from app.domain.schedule import DstFold
from app.engine.explanation import DowntimeKind, Pause, Verdict, WaitKind
from app.engine.left_out import LeftOutKind
from app.engine.occurrences import NoteCode
from app.engine.rule_match import Mismatch
from app.schemas.words.english import format_period, format_wall
from app.schemas.words.english_days import listed
from app.schemas.words.local import offset_text
from app.schemas.words.story import Story

_NOTES = {
    NoteCode.GAP_RUN_AFTER: "the clock jumps over {wall}, so its time is right after the jump",
    NoteCode.GAP_SHIFT: "the clock jumps over {wall}, so its time is as much later",
    NoteCode.FOLD_FIRST: "the clock shows {wall} twice, and this is the first time",
    NoteCode.FOLD_SECOND: "the clock shows {wall} twice, and this is the second time",
    NoteCode.FOLD_BOTH_FIRST: "the clock shows {wall} twice, and it runs both times",
    NoteCode.FOLD_BOTH_SECOND: "the clock shows {wall} twice, and it runs both times",
}


def tell(story: Story) -> str:
    """Write the sentence."""
    return f"{_TELLERS[story.told.verdict](story)}{_additions(story)}."


def _ran(story: Story) -> str:
    execution, end = story.execution, _completion(story.execution)
    started = execution.started_at or story.when
    if execution.cause is Cause.CATCH_UP:
        why = _while_down(story) or ", it was found too late"
        return f"It was caught up: due {_full(story)}{why}; it started {_at(story, started)} {end}"
    if not story.is_on_time:
        return (
            f"It ran late: due {_full(story)}, it started {format_period(story.lateness)} later, "
            f"{_at(story, started)}, {end}"
        )
    late = f"{format_period(story.lateness)} later" if story.lateness else "at once"
    jitter = " by its jitter" if story.jitter else ""
    return f"It ran on time: due {_full(story)}, it started {late}{jitter} {end}"


def _completion(execution: Execution) -> str:
    tries = "" if execution.attempts == 1 else f", after {execution.attempts} attempts,"
    return f"and completed{tries} with HTTP status {execution.http_status}"


def _failed(story: Story) -> str:
    execution = story.execution
    if story.reason is Reason.BROKEN:
        sent = "sent" if not execution.attempts else "sent again"
        return f"It failed: due {_full(story)}, it could not be {sent}, as its job is broken"
    tries = "its attempt" if execution.attempts == 1 else f"attempt {execution.attempts}, its last,"
    return f"It ran and failed: due {_full(story)}, {tries} {_failure(story)}"


def _failure(story: Story) -> str:
    status = story.execution.http_status
    if status is None:
        return f"ended with {_reason(story)}"
    answer = f"was answered with HTTP status {status}"
    return answer if story.reason is Reason.STATUS else f"{answer}: {_reason(story)}"


def _unknown(story: Story) -> str:
    what = "the process died" if story.reason is Reason.CRASH else "the service stopped"
    return (
        f"It is not known whether it ran: due {_full(story)}, it was sent, but {what} before the "
        "target had answered, and the job wants no repetition (on_crash fail)"
    )


def _cancelled(story: Story) -> str:
    begun = "was between two attempts" if story.execution.attempts else "had not started yet"
    match story.reason:
        case Reason.PAUSED:
            when = _change(story, None if story.around.pause is None else story.around.pause.began)
            return f"It was cancelled: due {_full(story)}, it {begun} when the job was paused{when}"
        case Reason.JOB_DELETED:
            when = _change(story, story.around.ended_by)
            return (
                f"It was cancelled: due {_full(story)}, it {begun} when the job was deleted{when}"
            )
        case Reason.OVERLAP:
            return (
                f"It was cut short: due {_full(story)}, it made way for the next run"
                f"{_id(story.around.overlap)}, as overlap_policy cancel_running says"
            )
        case _:
            ended = _at(story, story.execution.finished_at or story.when)
            return f"It was cancelled: due {_full(story)}, a user called it off {ended}"


def _running(story: Story) -> str:
    started = story.execution.started_at or story.when
    return (
        f"It is running: due {_full(story)}, it started {_at(story, started)} and is in "
        f"attempt {story.execution.attempts}"
    )


def _retrying(story: Story) -> str:
    following = story.execution.next_attempt_at or story.when
    return (
        f"It is to be retried: due {_full(story)}, attempt {story.execution.attempts} "
        f"{_failure(story)}, and the next one follows {_at(story, following)}"
    )


def _waiting(story: Story) -> str:
    return f"It is queued: due {_full(story)}, {_wait(story)}"


def _wait(story: Story) -> str:
    wait = story.around.wait
    match None if wait is None else wait.kind:
        case WaitKind.NOT_BEFORE if wait is not None and wait.until is not None:
            return f"it starts {_at(story, wait.until)}, delayed by jitter or to thin a crowd"
        case WaitKind.JOB_SLOT if wait is not None:
            return f"it waits until a run of the same job{_id(wait.behind)} is over"
        case WaitKind.HOST_SLOT:
            return "it waits until fewer runs to its host are under way"
        case WaitKind.ANY_SLOT:
            return "it waits until fewer runs of all jobs are under way"
        case _:
            return "it starts at any moment"


def _skipped(story: Story) -> str:
    return f"It did not run: {_SKIPS[story.reason](story)}"


def _skipped_overlap(story: Story) -> str:
    policy = "" if story.policy is None else f" {story.policy.overlap}"
    return (
        f"due {_full(story)}, it met an earlier run{_id(story.around.overlap)} that was not over "
        f"yet, and overlap_policy{policy} starts no further one"
    )


def _skipped_queue_full(story: Story) -> str:
    return f"due {_full(story)}, it found 1,000 runs of the job waiting already"


def _skipped_paused(story: Story) -> str:
    return f"due {_full(story)}, it fell into a pause of the job{_pause(story, story.around.pause)}"


def _skipped_coalesced(story: Story) -> str:
    return (
        f"due {_full(story)}{_while_down(story) or ', it was found late'}, and the "
        f"newer run{_id(story.around.merged_into)} stands for it (catch_up latest)"
    )


def _skipped_gap(story: Story) -> str:
    return (
        f"the clock jumps over {format_wall(story.void_wall)}, and dst_gap skip drops such a time"
    )


def _skipped_fold(story: Story) -> str:
    fold = _fold(story)
    chosen = "the other one" if fold is None else f"the {fold} time"
    return f"the clock shows {format_wall(story.void_wall)} twice, and dst_fold chose {chosen}"


def _skipped_broken(story: Story) -> str:
    when = _change(story, story.told.findings.revision)
    return f"due {_full(story)}, it came while the job was broken, as was found{when}"


_SKIPS: dict[Reason, Callable[[Story], str]] = {
    Reason.OVERLAP: _skipped_overlap,
    Reason.QUEUE_FULL: _skipped_queue_full,
    Reason.PAUSED: _skipped_paused,
    Reason.COALESCED: _skipped_coalesced,
    Reason.DST_GAP: _skipped_gap,
    Reason.DST_FOLD: _skipped_fold,
    Reason.BROKEN: _skipped_broken,
}


def _missed(story: Story) -> str:
    policy = story.policy
    head = f"It did not run: due {_full(story)}"
    catch_up = "" if policy is None else f" {policy.catch_up}"
    match story.reason:
        case Reason.SCHEDULER_DOWN:
            why = _while_down(story) or ", while the service was not running"
            return f"{head}{why}, and catch_up{catch_up} does not make up for it"
        case Reason.LIMIT:
            return f"{head}, it was beyond what catch_up{catch_up} makes up for{_limits(story)}"
        case _:
            grace = None if policy is None else policy.misfire_grace
            most = "" if grace is None else f" ({format_period(grace)})"
            return (
                f"{head}, it was found {format_period(story.lateness)} late, beyond "
                f"misfire_grace_time{most}{_while_down(story)}, and catch_up{catch_up} does not "
                "make up for it"
            )


def _limits(story: Story) -> str:
    if story.policy is None:
        return ""
    window = story.policy.catch_up_window
    age = "" if window is None else f", none older than {format_period(window)}"
    return f" (at most {story.policy.catch_up_max_runs}{age})"


def _will_run(story: Story) -> str:
    jitter = f", {format_period(story.jitter)} later by its jitter" if story.jitter else ""
    return f"It will run on {_full(story)}{jitter}, as its schedule names that time"


def _pending(story: Story) -> str:
    return (
        f"It has not run yet: due {_full(story)}, {format_period(story.found_late)} ago, it is "
        "still to be taken up by the scheduler"
    )


def _not_due(story: Story) -> str:
    head = "It will not run on" if story.is_future else "It was not due on"
    return f"{head} {_full(story)}: {_misfit(story)}{_nearest(story)}"


def _misfit(story: Story) -> str:
    asked, match = story.told.findings.asked, story.told.match
    if asked.missing and asked.wall is not None:
        return f"the clock jumps over {format_wall(asked.wall)}, and nothing is made up for it"
    mismatches = () if match is None else match.mismatches
    if not mismatches:
        return "its schedule does not name that time"
    return f"its schedule asks for {listed([_mismatch(story, one) for one in mismatches])}"


def _mismatch(story: Story, one: Mismatch) -> str:
    if one.field in {"start_at", "end_at"}:
        instant = _full(story, datetime.fromisoformat(one.wanted))
        return f"times {'from' if one.field == 'start_at' else 'until'} {instant}"
    return f"{one.field} {one.wanted} (this is {one.found})"


def _nearest(story: Story) -> str:
    match = story.told.match
    before = None if match is None else match.previous
    after = None if match is None else match.following
    if before is not None and after is not None:
        return f"; its nearest times are {_full(story, before)} and {_full(story, after)}"
    if after is not None:
        return f"; its first time is {_full(story, after)}"
    return "" if before is None else f"; its last time was {_full(story, before)}"


def _clock_change(story: Story) -> str:
    head = "It will not run" if story.is_future else "It did not run"
    void = None if story.told.match is None else story.told.match.void
    is_gap = void is None or void.kind is LeftOutKind.GAP
    return f"{head}: {_skipped_gap(story) if is_gap else _skipped_fold(story)}"


def _paused(story: Story) -> str:
    pause = story.around.pause
    if story.is_future:
        when = _change(story, None if pause is None else pause.began)
        return f"It will not run on {_full(story)} unless it is resumed before: it was paused{when}"
    return (
        f"It did not run: due {_full(story)}, it fell into a pause of the job{_pause(story, pause)}"
    )


def _is_broken(story: Story) -> str:
    head = "It will not run on" if story.is_future else "It did not run on"
    when = _change(story, story.told.findings.revision)
    return f"{head} {_full(story)}: the job is broken, as was found{when}, and must be sent again"


def _finished(story: Story) -> str:
    head = "It will not run on" if story.is_future else "It was not due on"
    return f"{head} {_full(story)}: its schedule has no time from then on{_nearest(story)}"


def _deleted(story: Story) -> str:
    head = "It will not run on" if story.is_future else "It did not run on"
    return f"{head} {_full(story)}: the job was deleted{_change(story, story.around.ended_by)}"


def _not_created(story: Story) -> str:
    created = story.told.findings.created
    return (
        f"It did not run on {_full(story)}: the job was created later"
        f"{_change(story, created)}{_nearest(story)}"
    )


def _not_kept(story: Story) -> str:
    return f"It was due on {_full(story)}, but history of that time is no longer kept"


def _not_recorded(story: Story) -> str:
    return f"It was due on {_full(story)}, but the ledger has no entry of it"


_TELLERS: dict[Verdict, Callable[[Story], str]] = {
    Verdict.RAN: _ran,
    Verdict.FAILED: _failed,
    Verdict.UNKNOWN: _unknown,
    Verdict.CANCELLED: _cancelled,
    Verdict.RUNNING: _running,
    Verdict.RETRYING: _retrying,
    Verdict.WAITING: _waiting,
    Verdict.SKIPPED: _skipped,
    Verdict.MISSED: _missed,
    Verdict.WILL_RUN: _will_run,
    Verdict.PENDING: _pending,
    Verdict.NOT_DUE: _not_due,
    Verdict.CLOCK_CHANGE: _clock_change,
    Verdict.PAUSED: _paused,
    Verdict.BROKEN: _is_broken,
    Verdict.FINISHED: _finished,
    Verdict.DELETED: _deleted,
    Verdict.NOT_CREATED: _not_created,
    Verdict.NOT_KEPT: _not_kept,
    Verdict.NOT_RECORDED: _not_recorded,
}


def _additions(story: Story) -> str:
    """Say what else matters: a jump of the clock, a stretch, a later change, other runs."""
    told, parts = story.told, []
    if told.match is not None and told.match.notes:
        note = told.match.notes[0]
        parts.append(_NOTES[note.code].format(wall=format_wall(note.wall)))
    execution = None if told.entry is None else told.entry.execution
    if execution is not None and execution.scheduled_until is not None:
        parts.append(f"so it went for {execution.instant_count:,} times of the schedule in a row")
    if story.around.changed is not None:
        parts.append(f"the schedule was changed{_change(story, story.around.changed)}")
    if execution is None and story.around.others:
        count = len(story.around.others)
        runs = "one run was" if count == 1 else f"{count} runs were"
        parts.append(f"{runs} wanted within a minute of it, though not by the schedule")
    return "".join(f"; {part}" for part in parts)


def _full(story: Story, instant: datetime | None = None) -> str:
    local = story.local(instant or story.when)
    return f"{format_wall(local.wall)} ({offset_text(local.offset)})"


def _at(story: Story, instant: datetime) -> str:
    """Write an instant beside the one told of: by its time of day where that is enough."""
    if story.is_near(instant):
        return f"at {story.local(instant).wall:%H:%M:%S}"
    return f"on {_full(story, instant)}"


def _change(story: Story, revision: Revision | None) -> str:
    if revision is None:
        return ""
    actor = "" if revision.actor is None else f" by {revision.actor}"
    return f"{actor} on {_full(story, revision.changed_at)}"


def _pause(story: Story, pause: Pause | None) -> str:
    if pause is None:
        return ""
    began = _change(story, pause.began)
    if pause.ended is None:
        return f", begun{began}"
    return f", begun{began} and ended on {_full(story, pause.ended.changed_at)}"


def _while_down(story: Story) -> str:
    downtime = story.around.downtime
    if downtime is None:
        return ""
    begin, end = _full(story, downtime.begin), _full(story, downtime.end)
    if downtime.kind is DowntimeKind.CLOCK_SET_FORWARD:
        return f", as the machine's clock was set forward from {begin} to {end}"
    return f", while the service was not running from {begin} to {end}"


def _fold(story: Story) -> DstFold | None:
    revision = story.told.findings.revision
    return None if revision is None or revision.schedule is None else revision.schedule.dst_fold


def _reason(story: Story) -> str:
    return f"{story.reason} ({story.title.en})"


def _id(execution_id: str | None) -> str:
    return "" if execution_id is None else f" {execution_id}"
