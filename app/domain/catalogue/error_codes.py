"""What the API answers instead of what was asked for, by its stable ``code``.

Codes come from ``domain/errors.py`` and, for what never reaches a service, from ``api/errors.py``,
which also knows the HTTP statuses.
"""

from app.domain.catalogue.entry import ErrorEntry, Text

ERROR_CODES = {
    "malformed_request": ErrorEntry(
        title=Text(en="Malformed request", ja="リクエストの形式が不正"),
        cause=Text(
            en="A field is missing or malformed. `title` is the sentence, `detail` lists the "
            "fields.",
            ja="項目が足りないか、形が正しくありません。`title` に説明、`detail` に項目の一覧が"
            "あります。",
        ),
        fix=Text(
            en="Correct the fields, and send the header `Content-Type: application/json`.",
            ja="該当する項目を直してください。ヘッダー `Content-Type: application/json` も必要"
            "です。",
        ),
    ),
    "bad_request": ErrorEntry(
        title=Text(en="Unreadable request", ja="リクエストを読み取れない"),
        cause=Text(
            en="The request could not be read at all.",
            ja="リクエストをまったく読み取れませんでした。",
        ),
        fix=Text(
            en="Send well-formed JSON over HTTP.",
            ja="正しい JSON を HTTP で送ってください。",
        ),
    ),
    "invalid_schedule": ErrorEntry(
        title=Text(en="Impossible schedule", ja="成り立たないスケジュール"),
        cause=Text(
            en="The schedule is missing for its type, contradicts itself, lies in the past, or "
            "never fires.",
            ja="種類に応じたスケジュールがない、矛盾している、過去である、または一度も実行され"
            "ません。",
        ),
        fix=Text(
            en="`detail` says what to change.",
            ja="`detail` に従って直してください。",
        ),
    ),
    "invalid_job": ErrorEntry(
        title=Text(en="Impossible job", ja="成り立たないジョブ"),
        cause=Text(
            en="Fields of the job contradict each other, or the job is too large to be stored.",
            ja="ジョブの項目どうしが矛盾しているか、ジョブが大きすぎて保存できません。",
        ),
        fix=Text(
            en="`detail` says what to change.",
            ja="`detail` に従って直してください。",
        ),
    ),
    "egress_denied": ErrorEntry(
        title=Text(en="Target not allowed", ja="許可されていない呼び出し先"),
        cause=Text(
            en="The egress settings do not allow the target to be called. Nothing was stored.",
            ja="この呼び出し先は、送信先の設定で許可されていません。何も保存していません。",
        ),
        fix=Text(
            en="Choose another target, or let the operator allow it by `MYSCHEDULER_EGRESS_ALLOW`, "
            "its scheme by `MYSCHEDULER_EGRESS_SCHEMES`.",
            ja="別の呼び出し先にするか、`MYSCHEDULER_EGRESS_ALLOW`（スキームなら "
            "`MYSCHEDULER_EGRESS_SCHEMES`）での許可を運用担当者に依頼してください。",
        ),
    ),
    "job_not_found": ErrorEntry(
        title=Text(en="No such job", ja="ジョブがない"),
        cause=Text(
            en="There is no job with this id.",
            ja="この ID のジョブはありません。",
        ),
        fix=Text(
            en="Check the id; `GET /api/v1/jobs` lists all jobs.",
            ja="ID を確認してください。`GET /api/v1/jobs` で一覧できます。",
        ),
    ),
    "execution_not_found": ErrorEntry(
        title=Text(en="No such execution", ja="execution がない"),
        cause=Text(
            en="There is no execution with this id.",
            ja="この ID の execution はありません。",
        ),
        fix=Text(
            en="Check the id; `GET /api/v1/jobs/executions/recent` lists the newest ones.",
            ja="ID を確認してください。`GET /api/v1/jobs/executions/recent` で最近のものを一覧"
            "できます。",
        ),
    ),
    "reason_not_found": ErrorEntry(
        title=Text(en="No such reason or code", ja="理由やコードがない"),
        cause=Text(
            en="There is no reason and no error code of this name.",
            ja="この名前の理由やエラーコードはありません。",
        ),
        fix=Text(
            en="`detail` names one that is spelled alike, if any; `GET /api/v1/reasons` lists all.",
            ja="綴りの似たものがあれば `detail` に示します。`GET /api/v1/reasons` で一覧できます。",
        ),
    ),
    "path_not_found": ErrorEntry(
        title=Text(en="No such path", ja="パスがない"),
        cause=Text(
            en="There is nothing at this path.",
            ja="このパスには何もありません。",
        ),
        fix=Text(
            en="Check the path; `/docs` lists them all.",
            ja="パスを確認してください。`/docs` に一覧があります。",
        ),
    ),
    "method_not_allowed": ErrorEntry(
        title=Text(en="Method not possible here", ja="使えないメソッド"),
        cause=Text(
            en="The path exists, but not with this method.",
            ja="パスはありますが、このメソッドは使えません。",
        ),
        fix=Text(
            en="Use a method that `detail` names.",
            ja="`detail` にあるメソッドを使ってください。",
        ),
    ),
    "job_exists": ErrorEntry(
        title=Text(en="Job exists already", ja="ジョブがすでにある"),
        cause=Text(
            en="A job with this id exists already. After a lost answer, this tells that the first "
            "request was stored.",
            ja="この ID のジョブはすでにあります。応答を受け取り損ねた後なら、最初のリクエストは"
            "保存済みです。",
        ),
        fix=Text(
            en='Send `"replace_existing": true` to replace it, or choose another `job_id`.',
            ja='置き換えるなら `"replace_existing": true` を付け、そうでなければ別の `job_id` に'
            "してください。",
        ),
    ),
    "job_broken": ErrorEntry(
        title=Text(en="Job cannot be read", ja="ジョブを読み取れない"),
        cause=Text(
            en="The stored definition of the job cannot be read, so it cannot run.",
            ja="保存されたジョブの定義を読み取れないため、実行できません。",
        ),
        fix=Text(
            en="Send the whole job again with `replace_existing`.",
            ja="ジョブ全体を、`replace_existing` を付けて登録し直してください。",
        ),
    ),
    "execution_over": ErrorEntry(
        title=Text(en="Execution over", ja="execution が終了済み"),
        cause=Text(
            en="The execution to be cancelled has ended already, in the status that `detail` "
            "names.",
            ja="取り消そうとした execution は、`detail` にある状態ですでに終わっています。",
        ),
        fix=Text(
            en="Nothing: there is nothing left to cancel. `GET /api/v1/executions/{execution_id}` "
            "shows what happened.",
            ja="取り消すものは残っていないため、何もする必要はありません。経過は "
            "`GET /api/v1/executions/{execution_id}` で確認できます。",
        ),
    ),
    "too_many_waiting": ErrorEntry(
        title=Text(en="Too many executions waiting", ja="待機中の execution が多すぎる"),
        cause=Text(
            en="The job was triggered faster than it runs: 1,000 of its executions wait already, "
            "for their turn or for a retry. The target may be slow or hang.",
            ja="実行が追いつかない速さでジョブが起動され、"
            "順番または再試行を待つ execution がすでに 1,000 件あります。"
            "呼び出し先が遅いか、応答していない可能性があります。",
        ),
        fix=Text(
            en="Look at the job's executions and at its target. Trigger it again once some have "
            "run, cancel those that are no longer wanted, or let the job run more at once with "
            "`max_instances`.",
            ja="ジョブの execution と呼び出し先を確認してください。"
            "いくつか実行されてから再度起動するか、不要なものを取り消すか、"
            "`max_instances` で同時実行数を増やしてください。",
        ),
    ),
    "idempotency_key_reused": ErrorEntry(
        title=Text(en="Idempotency key used before", ja="使用済みの冪等キー"),
        cause=Text(
            en="This `Idempotency-Key` came with another request in the last 24 hours.",
            ja="同じ `Idempotency-Key` が、この 24 時間以内に別のリクエストで使われました。",
        ),
        fix=Text(
            en="Use a new key for a new request, and an old one only to repeat the same request "
            "byte for byte.",
            ja="新しいリクエストには新しいキーを使ってください。同じキーを使えるのは、まったく同じ"
            "リクエストを送り直すときだけです。",
        ),
    ),
    "request_too_large": ErrorEntry(
        title=Text(en="Request too large", ja="リクエストが大きすぎる"),
        cause=Text(
            en="The request is larger than `MYSCHEDULER_REQUEST_BYTES_MAX`.",
            ja="リクエストが `MYSCHEDULER_REQUEST_BYTES_MAX` を超えています。",
        ),
        fix=Text(
            en="Send less and let the target fetch large data itself, or raise the setting.",
            ja="リクエストを小さくし、大きなデータは呼び出し先から取りに行かせてください。または、"
            "設定値を上げてください。",
        ),
    ),
    "request_timeout": ErrorEntry(
        title=Text(en="Request arrived too slowly", ja="リクエストの到着が遅すぎる"),
        cause=Text(
            en="The headers were not complete 30 seconds after connecting or after the last "
            "answer, or the body 60 seconds after the headers. The connection is closed.",
            ja="接続または直前の応答から 30 秒以内にヘッダーが揃わない、またはヘッダーから 60 秒"
            "以内に本文が揃いませんでした。接続は閉じられます。",
        ),
        fix=Text(
            en="Send the request again in one piece. Behind a proxy, let the proxy read requests "
            "whole before it passes them on.",
            ja="リクエストをまとめて送り直してください。プロキシを使う場合は、全体を受け取ってから"
            "転送するよう設定してください。",
        ),
    ),
    "head_too_large": ErrorEntry(
        title=Text(en="Headers too large", ja="ヘッダーが大きすぎる"),
        cause=Text(
            en="The request line and the headers are longer than 65,536 bytes.",
            ja="リクエスト行とヘッダーの合計が 64 KiB を超えています。",
        ),
        fix=Text(
            en="Send fewer or shorter headers; look for cookies that the client need not send.",
            ja="ヘッダーを減らすか短くしてください。不要な Cookie がないかも確認してください。",
        ),
    ),
    "too_many_connections": ErrorEntry(
        title=Text(en="Too many connections", ja="接続が多すぎる"),
        cause=Text(
            en="All of 4,096 connections, or of half as many as the limit of open files allows, "
            "have a request under way. The connection is closed.",
            ja="4096 本（または開けるファイル数の上限の半分）の接続が、すべてリクエストを処理中"
            "です。接続は閉じられます。",
        ),
        fix=Text(
            en="Try again in a moment, and let clients share connections; raise the limit of open "
            "files (`ulimit -n`) if it is below 8192.",
            ja="少し待ってやり直し、クライアントでは接続を使い回してください。開けるファイル数の上限"
            "（`ulimit -n`）が 8192 未満なら上げてください。",
        ),
    ),
    "internal_error": ErrorEntry(
        title=Text(en="Fault in the service", ja="サービスの不具合"),
        cause=Text(
            en="The service has a fault.",
            ja="サービス側の不具合です。",
        ),
        fix=Text(
            en="Look in its log under the `X-Request-ID` of the answer, and report what you find.",
            ja="応答の `X-Request-ID` でサービスのログを調べ、その内容を報告してください。",
        ),
    ),
    "storage_unavailable": ErrorEntry(
        title=Text(en="Database not available", ja="データベースを使えない"),
        cause=Text(
            en="The database did not take the change, or cannot be read. Nothing was stored. At a "
            "start, the same sentence is printed and the exit code is 1.",
            ja="データベースに書き込めない、または読み取れません。何も保存していません。起動時なら"
            "同じ文を表示し、終了コード 1 で終わります。",
        ),
        fix=Text(
            en="Check the disk space and the rights to the data directory, or that PostgreSQL runs "
            "and can be reached, and send the request again after `Retry-After`.",
            ja="ディスクの空きとデータディレクトリーの権限、または PostgreSQL が動いていて"
            "接続できるかを確認し、`Retry-After` の秒数だけ待ってもう一度送ってください。",
        ),
    ),
    "storage_damaged": ErrorEntry(
        title=Text(en="Database file damaged", ja="データベースファイルの破損"),
        cause=Text(
            en="Parts of the SQLite file cannot be read: the disk failed, or another program wrote "
            "into the file. From the moment this is noticed nothing is read, written or sent any "
            "more. At a start, the file is named, stays as it is, and the exit code is 1.",
            ja="SQLite ファイルに読み取れない箇所があります。ディスクの故障か、ほかのプログラムに"
            "よる書き込みが原因です。破損に気づいた時点で、読み取り、書き込み、送信をすべてやめます。"
            "起動時なら、ファイル名を表示し、ファイルには手を付けずに終了コード 1 で終わります。",
        ),
        fix=Text(
            en="Stop the service and run `myscheduler check` to see what is wrong. Keep the file "
            "with those beside it, put a backup in its place, and start. Sending the request again "
            "helps only after that.",
            ja="サービスを止め、`myscheduler check` で破損の内容を確認してください。ファイルは"
            "隣にあるファイルごと保管し、代わりにバックアップを置いて起動してください。リクエストの"
            "再送が役に立つのは、その後です。",
        ),
    ),
    "storage_unanswered": ErrorEntry(
        title=Text(en="Change not confirmed", ja="変更の結果が不明"),
        cause=Text(
            en="The connection to PostgreSQL was lost in the moment between the order to store the "
            "change and its confirmation. The change may be stored, or not.",
            ja="変更の確定を PostgreSQL に指示した後、完了の応答を受け取る前に接続が切れました。"
            "変更は保存されているかもしれず、されていないかもしれません。",
        ),
        fix=Text(
            en="A request that had an `Idempotency-Key` is sent again with the same key after "
            "`Retry-After`: nothing is done twice. Without one, look first at the job or the "
            "execution. What was due is not affected: the service accounts for it by itself.",
            ja="`Idempotency-Key` を付けたリクエストは、`Retry-After` の秒数だけ待って同じキーで"
            "もう一度送ってください。二重に実行されることはありません。付けていなければ、まずジョブや"
            " execution を確認してください。予定された実行には影響しません。サービスが自分で"
            "帳尻を合わせます。",
        ),
    ),
    "shutting_down": ErrorEntry(
        title=Text(en="Service stopping", ja="サービスが停止中"),
        cause=Text(
            en="The service is stopping and takes no more changes. Nothing was stored.",
            ja="サービスが停止しようとしているため、変更を受け付けません。何も保存していません。",
        ),
        fix=Text(
            en="Send the request again after `Retry-After`.",
            ja="`Retry-After` の秒数だけ待って、もう一度送ってください。",
        ),
    ),
    "address_unavailable": ErrorEntry(
        answered=False,
        title=Text(en="Cannot listen", ja="待ち受けできない"),
        cause=Text(
            en="The service did not start, because it cannot listen on `HOST` and `PORT`; usually "
            "another process does. The exit code is 1.",
            ja="`HOST` と `PORT` で待ち受けできないため、サービスを起動できませんでした。たいていは"
            "別のプロセスが使用中です。終了コードは 1 です。",
        ),
        fix=Text(
            en="Stop what listens there, or set another `PORT`.",
            ja="使用中のプロセスを止めるか、別の `PORT` を指定してください。",
        ),
    ),
    "storage_in_use": ErrorEntry(
        answered=False,
        title=Text(en="Database in use", ja="データベースが使用中"),
        cause=Text(
            en="The service did not start, because another process uses the data directory. The "
            "exit code is 1.",
            ja="別のプロセスがデータディレクトリーを使っているため、サービスを起動できませんでした。"
            "終了コードは 1 です。",
        ),
        fix=Text(
            en="Stop the process that the sentence names, or set another `DATABASE_URL`.",
            ja="表示されたプロセスを止めるか、別の `DATABASE_URL` を指定してください。",
        ),
    ),
    "lock_taken": ErrorEntry(
        answered=False,
        title=Text(en="Lock held elsewhere", ja="ロックを取得できない"),
        cause=Text(
            en="Code that uses `single_instance` did not start, because another holder has the "
            "lock. The sentence says who.",
            ja="別の保持者がロックを持っているため、`single_instance` で守られた処理を始めません"
            "でした。保持者はエラー文に出ます。",
        ),
        fix=Text(
            en="Let it end, or give `wait` so that the second one waits for its turn.",
            ja="先の処理が終わるのを待つか、`wait` を指定して順番を待たせてください。",
        ),
    ),
    "lock_lost": ErrorEntry(
        answered=False,
        title=Text(en="Lock lost", ja="ロックを失った"),
        cause=Text(
            en="The connection to the database ended while the lock of `single_instance` was held. "
            "Another process may hold it by now.",
            ja="`single_instance` のロックを持っている間に、データベースとの接続が切れました。"
            "すでに別のプロセスがロックを持っているかもしれません。",
        ),
        fix=Text(
            en="See what the interrupted code has done, and run it again. Before a step that must "
            "not happen twice, let it call `check()`.",
            ja="中断された処理がどこまで進んだかを確認し、もう一度実行してください。二度行ってはならない"
            "手順の直前では `check()` を呼んでください。",
        ),
    ),
}
