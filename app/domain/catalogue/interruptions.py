"""Reasons of runs that something ended from outside."""

from app.domain.catalogue.entry import Group, ReasonEntry, Text
from app.domain.execution import ExecutionStatus, Reason

# To be sent again, or, where the job wants no repetition, left open.
_AGAIN_OR_UNKNOWN = (ExecutionStatus.RETRYING, ExecutionStatus.UNKNOWN)

INTERRUPTIONS = {
    Reason.CRASH: ReasonEntry(
        group=Group.INTERRUPTED,
        statuses=_AGAIN_OR_UNKNOWN,
        title=Text(en="Process died", ja="プロセスの異常終了"),
        cause=Text(
            en="The process died in mid-attempt, so the target may or may not have received the "
            "request. It is sent again under the same id, unless the job says `on_crash` `fail`.",
            ja="試行の途中でプロセスが落ちたため、リクエストが届いたかどうかは分かりません。"
            "`on_crash` が `fail` でなければ、同じ ID で送り直します。",
        ),
        fix=Text(
            en="Find out why the process ended. With status `unknown`, ask the target whether it "
            "handled the id, and use `trigger` if it did not.",
            ja="プロセスが落ちた原因を調べてください。`unknown` で終わっている場合は、その ID を"
            "処理したかどうかを呼び出し先で確認し、未処理なら `trigger` で実行してください。",
        ),
    ),
    Reason.SHUTDOWN: ReasonEntry(
        group=Group.INTERRUPTED,
        statuses=_AGAIN_OR_UNKNOWN,
        title=Text(en="Service stopped", ja="サービスの停止"),
        cause=Text(
            en="The service stopped, or was suspended, before the target had answered. The run is "
            "sent again under the same id without using up a retry, unless the job says "
            "`on_crash` `fail` and the request may have left.",
            ja="呼び出し先が応答する前に、サービスが停止または一時中断しました。同じ ID で送り直"
            "し、再試行の回数は減りません。ただし `on_crash` が `fail` で、リクエストを送信した"
            "可能性がある場合は送り直しません。",
        ),
        fix=Text(
            en="Usually nothing. If it happens often, raise `MYSCHEDULER_SHUTDOWN_GRACE_SECONDS`. "
            "With status `unknown`, ask the target whether it handled the id, and use `trigger` "
            "if it did not.",
            ja="通常は何もする必要はありません。頻繁に起きるなら、"
            "`MYSCHEDULER_SHUTDOWN_GRACE_SECONDS` を延ばしてください。`unknown` で終わっている"
            "場合は、その ID を処理したかどうかを呼び出し先で確認し、未処理なら `trigger` で実行"
            "してください。",
        ),
    ),
    Reason.USER: ReasonEntry(
        group=Group.INTERRUPTED,
        statuses=(ExecutionStatus.CANCELLED,),
        title=Text(en="Cancelled by a user", ja="利用者による取り消し"),
        cause=Text(
            en="Somebody cancelled the run. If it was under way, its connection was closed, and "
            "the target may have received the request.",
            ja="利用者が実行を取り消しました。実行中だった場合は接続を閉じていますが、リクエストは"
            "呼び出し先に届いている可能性があります。",
        ),
        fix=Text(
            en="Nothing, if that was meant.",
            ja="意図したものなら、何もする必要はありません。",
        ),
    ),
    Reason.BROKEN: ReasonEntry(
        group=Group.INTERRUPTED,
        statuses=(ExecutionStatus.FAILED, ExecutionStatus.SKIPPED),
        title=Text(en="Job cannot be read", ja="ジョブを読み取れない"),
        cause=Text(
            en="The stored definition of the job cannot be read or followed. With status `failed`: "
            "the run was waiting and could not be sent. With `skipped`: it came due meanwhile.",
            ja="保存されたジョブの定義を読み取れないか、その予定をたどれません。`failed` の場合は、"
            "待っていた実行を送信できませんでした。`skipped` の場合は、その間に予定時刻が来ま"
            "した。",
        ),
        fix=Text(
            en="Send the whole job again with `replace_existing`.",
            ja="ジョブ全体を、`replace_existing` を付けて登録し直してください。",
        ),
    ),
}
