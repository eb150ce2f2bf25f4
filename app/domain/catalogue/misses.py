"""Reasons of runs whose time passed before they could start, and that nothing made up for."""

from app.domain.catalogue.entry import Group, ReasonEntry, Text
from app.domain.execution import ExecutionStatus, Reason

_MISSED = (ExecutionStatus.MISSED,)

MISSES = {
    Reason.SCHEDULER_DOWN: ReasonEntry(
        group=Group.MISSED,
        statuses=_MISSED,
        title=Text(en="Service not running", ja="サービスの停止中"),
        cause=Text(
            en="The service was not running when the run came due, and `catch_up` does not make up "
            "for it.",
            ja="予定時刻にサービスが動いておらず、`catch_up` の設定でも補われませんでした。",
        ),
        fix=Text(
            en="Keep the service running, or choose `catch_up` `latest` or `all`. `trigger` runs "
            "the job once now.",
            ja="サービスを動かし続けるか、`catch_up` を `latest` か `all` にしてください。今すぐ"
            "一回実行するには `trigger` を使ってください。",
        ),
    ),
    Reason.TOO_LATE: ReasonEntry(
        group=Group.MISSED,
        statuses=_MISSED,
        title=Text(en="Found too late", ja="開始の遅れ"),
        cause=Text(
            en="The service was running, but could not start the run within `misfire_grace_time`, "
            "and `catch_up` does not make up for it.",
            ja="サービスは動いていましたが、`misfire_grace_time` 以内に開始できず、`catch_up` の"
            "設定でも補われませんでした。",
        ),
        fix=Text(
            en="Look in the log for load or a suspended machine. Raise `misfire_grace_time`, or "
            "choose `catch_up` `latest` or `all`.",
            ja="ログで、高い負荷やマシンのスリープがなかったかを調べてください。"
            "`misfire_grace_time` を延ばすか、`catch_up` を `latest` か `all` にしてください。",
        ),
    ),
    Reason.LIMIT: ReasonEntry(
        group=Group.MISSED,
        statuses=_MISSED,
        title=Text(en="Beyond the catch-up limits", ja="追いかけ実行の上限を超過"),
        cause=Text(
            en="More runs were missed than `catch_up` `all` makes up for: only the newest "
            "`catch_up_max_runs`, and none older than `catch_up_window_sec`.",
            ja="逃した実行が、`catch_up` の `all` で補える範囲を超えていました。補うのは、新しい"
            "ものから `catch_up_max_runs` 件までで、`catch_up_window_sec` より古いものは除きます。",
        ),
        fix=Text(
            en="Raise `catch_up_max_runs` or `catch_up_window_sec`.",
            ja="`catch_up_max_runs` か `catch_up_window_sec` を増やしてください。",
        ),
    ),
}
