"""Reasons of attempts that got no good answer; engine/retries.py decides which are retried."""

from app.domain.catalogue.entry import Group, ReasonEntry, Text
from app.domain.execution import ExecutionStatus, Reason

_FAILED = (ExecutionStatus.FAILED,)
# While retries are left, the execution waits for the next one with the reason of the last.
_RETRIED = (ExecutionStatus.RETRYING, ExecutionStatus.FAILED)

ATTEMPT_FAILURES = {
    Reason.STATUS: ReasonEntry(
        group=Group.ATTEMPT_FAILED,
        statuses=_RETRIED,
        title=Text(en="Answer other than 2xx", ja="2xx 以外の応答"),
        cause=Text(
            en="The target answered with a status other than 2xx. A redirect is one too, unless "
            "the job says `follow_redirects`.",
            ja="呼び出し先が 2xx 以外のステータスを返しました。`follow_redirects` を指定していない"
            "ジョブでは、リダイレクトも失敗になります。",
        ),
        fix=Text(
            en="Look at `http_status_code` and `result.response_body` of the execution, then mend "
            "the URL, the method, the headers or the target. `max_retries` lets 5xx be retried, "
            "`retry_statuses` other statuses too.",
            ja="execution の `http_status_code` と `result.response_body` を確認し、URL、メソッド、"
            "ヘッダー、または呼び出し先を直してください。`max_retries` を指定すると 5xx を再試行"
            "します。ほかのステータスも、`retry_statuses` に挙げれば再試行します。",
        ),
    ),
    Reason.TIMEOUT: ReasonEntry(
        group=Group.ATTEMPT_FAILED,
        statuses=_RETRIED,
        title=Text(en="Timed out", ja="タイムアウト"),
        cause=Text(
            en="The attempt did not end within the job's `timeout_sec`. The error message says "
            "what it was doing at that moment.",
            ja="試行がジョブの `timeout_sec` 以内に終わりませんでした。その時点で何をしていたかは、"
            "エラーメッセージに書かれています。",
        ),
        fix=Text(
            en="Let the target answer first and do the work afterwards, or raise `timeout_sec`. "
            "The request may have been handled all the same: let the target recognise repetitions "
            "by `webhook-id`.",
            ja="呼び出し先が先に応答を返し、処理は後で行うようにするか、`timeout_sec` を延ばして"
            "ください。タイムアウトしたリクエストも処理された可能性があるので、`webhook-id` で重複"
            "を見分けられるようにしてください。",
        ),
    ),
    Reason.DNS: ReasonEntry(
        group=Group.ATTEMPT_FAILED,
        statuses=_RETRIED,
        title=Text(en="Host name not resolved", ja="ホスト名を解決できない"),
        cause=Text(
            en="The host name in the URL could not be resolved. Nothing was sent.",
            ja="URL のホスト名を解決できませんでした。何も送信していません。",
        ),
        fix=Text(
            en="Check the spelling of the host name, and that the name servers of this machine "
            "know it.",
            ja="ホスト名の綴りと、このマシンの DNS でその名前を引けることを確認してください。",
        ),
    ),
    Reason.CONNECT: ReasonEntry(
        group=Group.ATTEMPT_FAILED,
        statuses=_RETRIED,
        title=Text(en="No connection", ja="接続できない"),
        cause=Text(
            en="No connection to the target came about. Nothing was sent.",
            ja="呼び出し先に接続できませんでした。何も送信していません。",
        ),
        fix=Text(
            en="Check that the target runs, that the port is right, and that no firewall is in "
            "between.",
            ja="呼び出し先が動いていること、ポートが正しいこと、途中のファイアウォールに遮られて"
            "いないことを確認してください。",
        ),
    ),
    Reason.TLS: ReasonEntry(
        group=Group.ATTEMPT_FAILED,
        statuses=_RETRIED,
        title=Text(en="No secure connection", ja="TLS 接続を確立できない"),
        cause=Text(
            en="The connection to the target could not be made secure. Nothing was sent.",
            ja="呼び出し先との TLS 接続を確立できませんでした。何も送信していません。",
        ),
        fix=Text(
            en="Check the target's certificate: host name, expiry, issuer. If the port does not "
            "speak TLS, use `http://`.",
            ja="呼び出し先の証明書（ホスト名、有効期限、発行者）を確認してください。TLS を使わない"
            "ポートなら、URL を `http://` にしてください。",
        ),
    ),
    Reason.PROTOCOL: ReasonEntry(
        group=Group.ATTEMPT_FAILED,
        statuses=_RETRIED,
        title=Text(en="Answer broken off or unreadable", ja="応答が途切れた、または読めない"),
        cause=Text(
            en="The connection ended before the answer was complete, or the answer was not valid "
            "HTTP. The request may have been handled.",
            ja="応答を最後まで受け取る前に接続が切れたか、応答が HTTP として正しくありません"
            "でした。リクエストは処理された可能性があります。",
        ),
        fix=Text(
            en="Look at the target's log, and at the log of this service if the error message says "
            "so. Let the target recognise repetitions by `webhook-id`, since a retry may reach it "
            "twice.",
            ja="呼び出し先のログを確認してください。エラーメッセージにそう書かれていれば、この"
            "サービスのログも確認してください。再試行が二重に届くことがあるので、`webhook-id` で"
            "重複を見分けられるようにしてください。",
        ),
    ),
    Reason.RESPONSE_TOO_LARGE: ReasonEntry(
        group=Group.ATTEMPT_FAILED,
        statuses=_FAILED,
        title=Text(en="Answer too large", ja="応答が大きすぎる"),
        cause=Text(
            en="The answer was larger than `MYSCHEDULER_RESPONSE_BYTES_MAX`, and the rest of it "
            "was not read. This is not retried.",
            ja="応答が `MYSCHEDULER_RESPONSE_BYTES_MAX` を超えたため、残りを読みませんでした。"
            "この失敗は再試行しません。",
        ),
        fix=Text(
            en="Let the target answer briefly, or raise the setting.",
            ja="呼び出し先が短い応答を返すようにするか、設定値を上げてください。",
        ),
    ),
    Reason.EGRESS_DENIED: ReasonEntry(
        group=Group.ATTEMPT_FAILED,
        statuses=_FAILED,
        title=Text(en="Target not allowed", ja="許可されていない呼び出し先"),
        cause=Text(
            en="The egress settings do not allow the address of the target, or the scheme of its "
            "URL. Nothing was sent there, and this is not retried.",
            ja="呼び出し先のアドレス、または URL のスキームが、送信先の設定で許可されていません。"
            "そこへは何も送信していません。この失敗は再試行しません。",
        ),
        fix=Text(
            en="Choose another target, or let the operator allow it by `MYSCHEDULER_EGRESS_ALLOW`, "
            "its scheme by `MYSCHEDULER_EGRESS_SCHEMES`.",
            ja="別の呼び出し先にするか、`MYSCHEDULER_EGRESS_ALLOW`（スキームなら "
            "`MYSCHEDULER_EGRESS_SCHEMES`）での許可を運用担当者に依頼してください。",
        ),
    ),
    Reason.CONFIG_ERROR: ReasonEntry(
        group=Group.ATTEMPT_FAILED,
        statuses=_FAILED,
        title=Text(en="Request cannot be built", ja="リクエストを組み立てられない"),
        cause=Text(
            en="No request could be built from the job. Nothing was sent, and this is not retried.",
            ja="ジョブの内容からリクエストを組み立てられませんでした。何も送信していません。この"
            "失敗は再試行しません。",
        ),
        fix=Text(
            en="The error message says what is wrong. Correct the job and send it again with "
            "`replace_existing`.",
            ja="何が正しくないかは、エラーメッセージに書かれています。ジョブを直し、"
            "`replace_existing` を付けて登録し直してください。",
        ),
    ),
    Reason.RETRIES_EXHAUSTED: ReasonEntry(
        group=Group.ATTEMPT_FAILED,
        statuses=_FAILED,
        title=Text(en="Retries used up", ja="再試行の上限に到達"),
        cause=Text(
            en="The last attempt that `max_retries` allows failed as well.",
            ja="`max_retries` で許された最後の試行も失敗しました。",
        ),
        fix=Text(
            en="Each attempt has its own reason in `attempt_list` of the execution. Mend the "
            "cause, then run the job again with `trigger`.",
            ja="各試行の理由は、execution の `attempt_list` にあります。原因を取り除いてから、"
            "`trigger` で実行し直してください。",
        ),
    ),
    Reason.ASSERTION: ReasonEntry(
        group=Group.ATTEMPT_FAILED,
        statuses=(),
        title=Text(en="Answer not as expected", ja="応答が条件を満たさない"),
        cause=Text(
            en="The answer does not fulfil what the job expects of it.",
            ja="応答が、ジョブに指定した条件を満たしていません。",
        ),
        fix=Text(
            en="Compare the answer with what the job expects, and mend the one that is wrong.",
            ja="応答とジョブの条件を見比べ、誤っているほうを直してください。",
        ),
    ),
}
