"""Explanations in Japanese: 「…の予定でしたが、前の実行がまだ終わっておらず、…」.

One function for each verdict, and for each reason of a run that did not start. Imports the story
and the writers of schedules; called by ``explaining.py``.
"""

from collections.abc import Callable
from datetime import datetime

from app.domain.execution import Cause, Execution, Reason
from app.domain.revision import Revision
from app.domain.schedule import DstFold
from app.engine.explanation import DowntimeKind, Verdict, WaitKind
from app.engine.left_out import LeftOutKind
from app.engine.occurrences import NoteCode
from app.engine.rule_match import Mismatch
from app.schemas.words.japanese import format_period, format_wall
from app.schemas.words.local import offset_text
from app.schemas.words.story import Story

_NOTES = {
    NoteCode.GAP_RUN_AFTER: "{wall}は時計が進んで存在しないため、進んだ直後が予定時刻です",
    NoteCode.GAP_SHIFT: "{wall}は時計が進んで存在しないため、進んだ分だけ後が予定時刻です",
    NoteCode.FOLD_FIRST: "{wall}は時計が戻って2度あり、これは1度目です",
    NoteCode.FOLD_SECOND: "{wall}は時計が戻って2度あり、これは2度目です",
    NoteCode.FOLD_BOTH_FIRST: "{wall}は時計が戻って2度あり、2度とも実行の対象です",
    NoteCode.FOLD_BOTH_SECOND: "{wall}は時計が戻って2度あり、2度とも実行の対象です",
}
_FOLDS = {DstFold.FIRST: "1度目", DstFold.SECOND: "2度目"}
_NOT_RUN = "実行されませんでした"
_WILL_NOT = "実行されません"


def tell(story: Story) -> str:
    """Write the sentence."""
    additions = "".join(f"（{addition}）" for addition in _additions(story))
    return f"{_TELLERS[story.told.verdict](story)}{additions}。"


def _ran(story: Story) -> str:
    execution, end = story.execution, _completion(story.execution)
    started = _at(story, execution.started_at or story.when)
    if execution.cause is Cause.CATCH_UP:
        why = _while_down(story) or "時刻どおりに始められなかった"
        return f"{_full(story)}の予定でしたが、{why}ため、{started}に追いかけて実行し、{end}"
    late = format_period(story.lateness)
    if not story.is_on_time:
        return f"{_full(story)}の予定でしたが、{late}遅れて{started}に始まり、{end}"
    jitter = "ジッターにより" if story.jitter else ""
    soon = f"{late}後に" if story.lateness else "すぐに"
    return f"{_full(story)}の予定どおり、{jitter}{soon}始まり、{end}"


def _completion(execution: Execution) -> str:
    tries = "" if execution.attempts == 1 else f"{execution.attempts}回目の試行で"
    return f"{tries}HTTPステータス{execution.http_status}を受け取って完了しました"


def _failed(story: Story) -> str:
    execution = story.execution
    head = f"{_full(story)}の予定"
    if story.reason is Reason.BROKEN:
        again = "送り直せずに" if execution.attempts else "送信できずに"
        return f"{head}の実行は、ジョブを読み取れなくなったため、{again}失敗しました"
    tries = "" if execution.attempts == 1 else f"{execution.attempts}回の試行の末、"
    return f"{head}で実行しましたが、{tries}{_answer(story)}失敗に終わりました{_reason(story)}"


def _answer(story: Story) -> str:
    status = story.execution.http_status
    return "" if status is None else f"HTTPステータス{status}の応答を受けて"


def _reason(story: Story) -> str:
    """Write the reason behind the verb, unless the answer has said it."""
    if story.reason is Reason.STATUS:
        return ""
    return f"（理由は{story.reason}：{story.title.ja}）"


def _unknown(story: Story) -> str:
    crashed = story.reason is Reason.CRASH
    what = "プロセスが落ちた" if crashed else "サービスが停止した"
    return (
        f"{_full(story)}の予定で送信しましたが、応答が届く前に{what}ため、実行されたかどうか"
        "分かりません（on_crashがfailのため、送り直していません）"
    )


def _cancelled(story: Story) -> str:
    begun = "次の試行を待つ間" if story.execution.attempts else "始まる前"
    match story.reason:
        case Reason.PAUSED:
            when = _change(story, None if story.around.pause is None else story.around.pause.began)
            why = f"{begun}に、ジョブが{when}一時停止されたため"
        case Reason.JOB_DELETED:
            why = f"{begun}に、ジョブが{_change(story, story.around.ended_by)}削除されたため"
        case Reason.OVERLAP:
            why = (
                f"overlap_policyのcancel_runningに従い、次の実行{_id(story.around.overlap)}に"
                "場所を空けるため"
            )
        case _:
            ended = _at(story, story.execution.finished_at or story.when)
            return f"{_full(story)}の予定の実行は、{ended}に利用者によって取り消されました"
    return f"{_full(story)}の予定の実行は、{why}、打ち切られました"


def _running(story: Story) -> str:
    started = _at(story, story.execution.started_at or story.when)
    tries = story.execution.attempts
    return f"{_full(story)}の予定の実行が、{started}に始まり、今は{tries}回目の試行の途中です"


def _retrying(story: Story) -> str:
    following = _at(story, story.execution.next_attempt_at or story.when)
    tries = story.execution.attempts
    return (
        f"{_full(story)}の予定の実行は、{tries}回目の試行が{_answer(story)}失敗し{_reason(story)}、"
        f"{following}に再試行する予定です"
    )


def _waiting(story: Story) -> str:
    return f"{_full(story)}の予定の実行は、{_wait(story)}"


def _wait(story: Story) -> str:
    wait = story.around.wait
    match None if wait is None else wait.kind:
        case WaitKind.NOT_BEFORE if wait is not None and wait.until is not None:
            return (
                f"ジッターまたは混雑を避けるため、{_at(story, wait.until)}まで開始を遅らせています"
            )
        case WaitKind.JOB_SLOT if wait is not None:
            return f"同じジョブの別の実行{_id(wait.behind)}が終わるのを待っています"
        case WaitKind.HOST_SLOT:
            return "同じ呼び出し先への実行が上限に達しているため、空きを待っています"
        case WaitKind.ANY_SLOT:
            return "全体の同時実行数が上限に達しているため、空きを待っています"
        case _:
            return "順番が来ており、まもなく始まります"


def _skipped(story: Story) -> str:
    return f"{_SKIPS[story.reason](story)}、{_NOT_RUN}"


def _skipped_overlap(story: Story) -> str:
    policy = "" if story.policy is None else f"の{story.policy.overlap}"
    return (
        f"{_full(story)}の予定でしたが、前の実行{_id(story.around.overlap)}がまだ終わっておらず、"
        f"overlap_policy{policy}に従い"
    )


def _skipped_queue_full(story: Story) -> str:
    return f"{_full(story)}の予定でしたが、このジョブの実行がすでに1,000件待っていたため"


def _skipped_paused(story: Story) -> str:
    return f"{_full(story)}の予定でしたが、{_pause(story)}ため"


def _skipped_coalesced(story: Story) -> str:
    why = _while_down(story) or "時刻どおりに始められなかった"
    return (
        f"{_full(story)}の予定でしたが、{why}ため、新しい実行{_id(story.around.merged_into)}に"
        "まとめられ（catch_upがlatest）"
    )


def _skipped_gap(story: Story) -> str:
    return f"{format_wall(story.void_wall)}は時計が進んで存在せず、dst_gapがskipのため"


def _skipped_fold(story: Story) -> str:
    revision = story.told.findings.revision
    schedule = None if revision is None else revision.schedule
    chosen = None if schedule is None else _FOLDS.get(schedule.dst_fold)
    wall = format_wall(story.void_wall)
    return f"{wall}は時計が戻って2度あり、dst_foldの指定により{chosen or 'もう一方'}が対象のため"


def _skipped_broken(story: Story) -> str:
    when = _change(story, story.told.findings.revision)
    return f"{_full(story)}の予定でしたが、ジョブが{when}読み取れなくなっていたため"


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
    catch_up = "" if policy is None else f"が{policy.catch_up}"
    head = f"{_full(story)}の予定でしたが、"
    match story.reason:
        case Reason.SCHEDULER_DOWN:
            why = _while_down(story) or "サービスが動いていなかった"
            return f"{head}{why}ため、{_NOT_RUN}（catch_up{catch_up}のため、補われません）"
        case Reason.LIMIT:
            return f"{head}catch_upで補う範囲を超えていたため{_limits(story)}、{_NOT_RUN}"
        case _:
            grace = None if policy is None else policy.misfire_grace
            most = "" if grace is None else f"（{format_period(grace)}）"
            down = _while_down(story)
            return (
                f"{head}{down and f'{down}結果、'}見つかったときには{format_period(story.lateness)}"
                f"遅れ、misfire_grace_time{most}を超えていたため、{_NOT_RUN}"
                f"（catch_up{catch_up}のため、補われません）"
            )


def _limits(story: Story) -> str:
    if story.policy is None:
        return ""
    window = story.policy.catch_up_window
    age = "" if window is None else f"、{format_period(window)}以内"
    return f"（新しいものから{story.policy.catch_up_max_runs}件まで{age}）"


def _will_run(story: Story) -> str:
    jitter = f"、ジッターにより{format_period(story.jitter)}遅れて" if story.jitter else "に"
    return f"{_full(story)}{jitter}、スケジュールに従って実行される予定です"


def _pending(story: Story) -> str:
    return (
        f"{_full(story)}の予定ですが、{format_period(story.found_late)}たった今も、"
        "スケジューラーがまだ取り上げていません"
    )


def _not_due(story: Story) -> str:
    end = _WILL_NOT if story.is_future else _NOT_RUN
    return f"{_full(story)}は、{_misfit(story)}ため、{end}"


def _misfit(story: Story) -> str:
    asked, match = story.told.findings.asked, story.told.match
    if asked.missing and asked.wall is not None:
        return f"時計が進んで{format_wall(asked.wall)}が存在せず、その分は補われない"
    mismatches = () if match is None else match.mismatches
    if not mismatches:
        return "スケジュールの予定時刻ではない"
    return f"スケジュールの{'、'.join(_mismatch(story, one) for one in mismatches)}に合わない"


def _mismatch(story: Story, one: Mismatch) -> str:
    if one.field in {"start_at", "end_at"}:
        return f"{one.field}（{_full(story, datetime.fromisoformat(one.wanted))}）"
    return f"{one.field}（指定は{one.wanted}、この時刻は{one.found}）"


def _nearest(story: Story) -> str:
    match = story.told.match
    before = None if match is None else match.previous
    after = None if match is None else match.following
    if before is not None and after is not None:
        return f"直前の予定は{_full(story, before)}、次の予定は{_full(story, after)}です"
    if after is not None:
        return f"最初の予定は{_full(story, after)}です"
    return "" if before is None else f"最後の予定は{_full(story, before)}でした"


def _clock_change(story: Story) -> str:
    void = None if story.told.match is None else story.told.match.void
    is_gap = void is None or void.kind is LeftOutKind.GAP
    why = _skipped_gap(story) if is_gap else _skipped_fold(story)
    return f"{why}、{_WILL_NOT if story.is_future else _NOT_RUN}"


def _paused(story: Story) -> str:
    if story.is_future:
        return f"{_pause(story)}ため、それまでに再開しないかぎり、{_full(story)}には{_WILL_NOT}"
    return f"{_full(story)}の予定でしたが、{_pause(story)}ため、{_NOT_RUN}"


def _is_broken(story: Story) -> str:
    when = _change(story, story.told.findings.revision)
    end = _WILL_NOT if story.is_future else _NOT_RUN
    return f"ジョブが{when}読み取れなくなり、登録し直す必要があるため、{_full(story)}には{end}"


def _finished(story: Story) -> str:
    end = _WILL_NOT if story.is_future else _NOT_RUN
    return f"{_full(story)}以降はスケジュールに予定がないため、{end}"


def _deleted(story: Story) -> str:
    end = _WILL_NOT if story.is_future else _NOT_RUN
    return f"ジョブが{_change(story, story.around.ended_by)}削除されたため、{_full(story)}には{end}"


def _not_created(story: Story) -> str:
    when = _change(story, story.told.findings.created)
    return f"ジョブは{when}作成されたもので、それより前の{_full(story)}には{_NOT_RUN}"


def _not_kept(story: Story) -> str:
    return f"{_full(story)}の予定でしたが、その時期の履歴はすでに保存期間を過ぎて削除されています"


def _not_recorded(story: Story) -> str:
    return f"{_full(story)}の予定でしたが、履歴にその記録がありません"


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


def _additions(story: Story) -> list[str]:
    """Say what else matters: a jump of the clock, a stretch, a later change, other runs."""
    told = story.told
    parts = [_nearest(story)] if told.verdict in _TOLD_WITH_NEAREST else []
    if told.match is not None and told.match.notes:
        note = told.match.notes[0]
        parts.append(_NOTES[note.code].format(wall=format_wall(note.wall)))
    execution = None if told.entry is None else told.entry.execution
    if execution is not None and execution.scheduled_until is not None:
        parts.append(f"連続する{execution.instant_count:,}件の予定が同じ扱いです")
    if story.around.changed is not None:
        parts.append(f"スケジュールは{_change(story, story.around.changed)}変更されています")
    if execution is None and story.around.others:
        count = len(story.around.others)
        parts.append(f"前後1分以内に、スケジュールによらない実行が{count}件あります")
    return [part for part in parts if part]


_TOLD_WITH_NEAREST = {Verdict.NOT_DUE, Verdict.FINISHED, Verdict.NOT_CREATED}


def _full(story: Story, instant: datetime | None = None) -> str:
    local = story.local(instant or story.when)
    return f"{format_wall(local.wall)}（{offset_text(local.offset)}）"


def _at(story: Story, instant: datetime) -> str:
    """Write an instant beside the one told of: by its time of day where that is enough."""
    if story.is_near(instant):
        wall = story.local(instant).wall
        return f"{wall.hour}時{wall.minute:02}分{wall.second:02}秒"
    return _full(story, instant)


def _change(story: Story, revision: Revision | None) -> str:
    """Write when and by whom, before the verb."""
    if revision is None:
        return ""
    actor = "" if revision.actor is None else f"{revision.actor}により"
    return f"{actor}{_full(story, revision.changed_at)}に"


def _pause(story: Story) -> str:
    pause = story.around.pause
    if pause is None:
        return "ジョブが一時停止中だった"
    began = f"ジョブが{_change(story, pause.began)}一時停止され"
    if pause.ended is None:
        return f"{began}ている"
    return f"{began}、{_full(story, pause.ended.changed_at)}まで停止していた"


def _while_down(story: Story) -> str:
    downtime = story.around.downtime
    if downtime is None:
        return ""
    begin, end = _full(story, downtime.begin), _full(story, downtime.end)
    if downtime.kind is DowntimeKind.CLOCK_SET_FORWARD:
        return f"マシンの時計が{begin}から{end}に進められた"
    return f"{begin}から{end}までサービスが動いていなかった"


def _id(execution_id: str | None) -> str:
    return "" if execution_id is None else f"（{execution_id}）"
