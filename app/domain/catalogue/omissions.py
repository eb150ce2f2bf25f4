"""Reasons of runs that did not start, or were ended, by rule or by order."""

from app.domain.catalogue.entry import Group, ReasonEntry, Text
from app.domain.execution import ExecutionStatus, Reason

_SKIPPED = (ExecutionStatus.SKIPPED,)
_CANCELLED = (ExecutionStatus.CANCELLED,)

OMISSIONS = {
    Reason.OVERLAP: ReasonEntry(
        group=Group.NOT_RUN,
        statuses=_CANCELLED + _SKIPPED,
        title=Text(en="Previous run not over", ja="前の実行が終わっていない"),
        cause=Text(
            en="With status `skipped`: the run before it was not over. With `cancelled`: it was "
            "ended to make way for the next run, as `overlap_policy` `cancel_running` says.",
            ja="`skipped` の場合は、前の実行がまだ終わっていなかったため、始めませんでした。"
            "`cancelled` の場合は、`overlap_policy` の `cancel_running` に従い、次の実行のために"
            "打ち切りました。",
        ),
        fix=Text(
            en="Let the target answer sooner, run the job less often, or choose another "
            "`overlap_policy` or `max_instances`.",
            ja="呼び出し先の応答を速くするか、実行の間隔を空けるか、`overlap_policy` や "
            "`max_instances` を変えてください。",
        ),
    ),
    Reason.QUEUE_FULL: ReasonEntry(
        group=Group.NOT_RUN,
        statuses=_SKIPPED,
        title=Text(en="Queue full", ja="順番待ちが上限に到達"),
        cause=Text(
            en="1,000 runs of this job were waiting already, for their turn or for a retry. No "
            "`overlap_policy` lets more of one job wait.",
            ja="このジョブの実行が、すでに 1,000 件、順番または再試行を待っていました。一つの"
            "ジョブで待てるのは、`overlap_policy` にかかわらずこの件数までです。",
        ),
        fix=Text(
            en="Let the target answer sooner, run the job less often, or raise the limit its runs "
            "wait for: `max_instances`, or `MYSCHEDULER_HOST_CONCURRENCY` with `allow`.",
            ja="呼び出し先の応答を速くするか、実行の間隔を空けるか、待つ原因になっている上限を"
            "上げてください。`max_instances`、または `allow` なら "
            "`MYSCHEDULER_HOST_CONCURRENCY` です。",
        ),
    ),
    Reason.PAUSED: ReasonEntry(
        group=Group.NOT_RUN,
        statuses=_CANCELLED + _SKIPPED,
        title=Text(en="Job paused", ja="ジョブが一時停止中"),
        cause=Text(
            en="The job was paused. With status `skipped`: the run came due during the pause. With "
            "`cancelled`: it had yet to have its turn, or its retry, when the pause began.",
            ja="ジョブが一時停止されていました。`skipped` の場合は、一時停止中に予定時刻が来ま"
            "した。`cancelled` の場合は、順番または再試行が来る前に一時停止されました。",
        ),
        fix=Text(
            en="Nothing, if that was meant. `resume` goes on with the next time and does not make "
            "up for these; `trigger` runs the job once now.",
            ja="意図したものなら、何もする必要はありません。`resume` すると次の予定時刻から再開"
            "しますが、この分は実行されません。今すぐ一回実行するには `trigger` を使ってください。",
        ),
    ),
    Reason.COALESCED: ReasonEntry(
        group=Group.NOT_RUN,
        statuses=_SKIPPED,
        title=Text(en="Merged into a newer run", ja="新しい実行にまとめた"),
        cause=Text(
            en="Several runs came due before the scheduler could start them, and the newest one "
            "stands for all (`catch_up` `latest`).",
            ja="開始できないうちに複数の予定時刻が過ぎたため、最も新しい一件にまとめました"
            "（`catch_up` が `latest`）。",
        ),
        fix=Text(
            en="Nothing, or `catch_up` `all` if each run matters.",
            ja="通常は何もする必要はありません。一件ずつ実行したい場合は、`catch_up` を `all` に"
            "してください。",
        ),
    ),
    Reason.DST_GAP: ReasonEntry(
        group=Group.NOT_RUN,
        statuses=_SKIPPED,
        title=Text(en="Local time does not exist", ja="存在しない時刻"),
        cause=Text(
            en="The clock went forward on that day and jumped over this local time, and the job "
            "says `dst_gap` `skip`.",
            ja="その日は時計が進み、この時刻が存在しませんでした（`dst_gap` が `skip`）。",
        ),
        fix=Text(
            en="Choose another `dst_gap`, a time that the jump spares, or the time zone `UTC`.",
            ja="`dst_gap` を変えるか、切り替えにかからない時刻、またはタイムゾーン `UTC` を使って"
            "ください。",
        ),
    ),
    Reason.DST_FOLD: ReasonEntry(
        group=Group.NOT_RUN,
        statuses=_SKIPPED,
        title=Text(en="Local time comes twice", ja="二度ある時刻"),
        cause=Text(
            en="The clock went back on that day, so this local time came twice, and `dst_fold` "
            "chose the other one.",
            ja="その日は時計が戻り、この時刻が二度ありました。`dst_fold` の指定により、もう一方を"
            "実行の対象としました。",
        ),
        fix=Text(
            en="Nothing, or another `dst_fold`, or the time zone `UTC`.",
            ja="通常は何もする必要はありません。変えるには、`dst_fold` を指定するか、タイムゾーン "
            "`UTC` を使ってください。",
        ),
    ),
    Reason.EXPIRED: ReasonEntry(
        group=Group.NOT_RUN,
        statuses=(),
        title=Text(en="Waited too long", ja="待つうちに期限切れ"),
        cause=Text(
            en="The run waited beyond the time at which it would have been of use.",
            ja="待っているうちに、実行の有効な期間を過ぎました。",
        ),
        fix=Text(
            en="Raise the limit, or find out why the run had to wait.",
            ja="期間を延ばすか、待たされた原因を調べてください。",
        ),
    ),
    Reason.BLACKOUT: ReasonEntry(
        group=Group.NOT_RUN,
        statuses=(),
        title=Text(en="In a blackout", ja="実行禁止の時間帯"),
        cause=Text(
            en="The run fell into a time in which nothing may run.",
            ja="予定時刻が、実行禁止の時間帯に当たりました。",
        ),
        fix=Text(
            en="Move the schedule or the blackout.",
            ja="スケジュールまたは禁止時間帯を変えてください。",
        ),
    ),
    Reason.DEPENDENCY: ReasonEntry(
        group=Group.NOT_RUN,
        statuses=(),
        title=Text(en="Run before it did not complete", ja="前提の実行が未完了"),
        cause=Text(
            en="A run that this one depends on did not complete.",
            ja="前提となる実行が完了しませんでした。",
        ),
        fix=Text(
            en="Mend the other run first.",
            ja="先に、前提となる実行を直してください。",
        ),
    ),
    Reason.JOB_DELETED: ReasonEntry(
        group=Group.NOT_RUN,
        statuses=_CANCELLED,
        title=Text(en="Job deleted", ja="ジョブが削除された"),
        cause=Text(
            en="The job was deleted before the run had its turn, or its retry.",
            ja="順番または再試行が来る前に、ジョブが削除されました。",
        ),
        fix=Text(
            en="Nothing, if that was meant. Otherwise create the job again.",
            ja="意図したものなら、何もする必要はありません。必要なら、ジョブを作り直してください。",
        ),
    ),
}
