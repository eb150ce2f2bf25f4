"""Schedules in Japanese, as a page shows them."""

from datetime import UTC, datetime, timedelta

import pytest

from app.domain.schedule import DstFold, DstGap
from app.schemas.words.japanese import describe_schedule, format_period
from tests.support.schedules import cron_of, crontab_of, date_of, interval_of

CRONTAB_LINES = [
    ("0 9 * * mon-fri", "毎週月〜金曜日の9時00分"),
    ("*/5 * * * *", "5分ごと"),
    ("30 0 L * *", "毎月末日の0時30分"),
    ("*/10 9-17 1,15 * 5", "毎月1日と15日、および毎週金曜日の9時00分から17時50分まで10分ごと"),
    ("0 9 * * *", "毎日9時00分"),
    ("* * * * *", "毎分"),
    ("0 * * * *", "毎時0分"),
    ("30 * * * *", "毎時30分"),
    ("1 * * * *", "毎時1分"),
    ("5,17 * * * *", "毎時5分と17分"),
    ("0 9,13,18 * * *", "毎日9時00分、13時00分、18時00分"),
    ("0 9-17 * * 1-5", "毎週月〜金曜日の9時00分から17時00分まで1時間ごと"),
    ("*/15 9-17 * * 1-5", "毎週月〜金曜日の9時00分から17時45分まで15分ごと"),
    ("30 */6 * * *", "毎日0時30分から18時30分まで6時間ごと"),
    ("0 22-2 * * *", "毎日22時00分から翌2時00分まで1時間ごと"),
    ("*/30 22-2 * * *", "毎日22時00分から翌2時30分まで30分ごと"),
    ("0 22-2 * * mon", "毎週月曜日の0時00分から2時00分までと22時00分から23時00分まで、1時間ごと"),
    ("@daily", "毎日0時00分"),
    ("@hourly", "毎時0分"),
    ("@weekly", "毎週日曜日の0時00分"),
    ("@monthly", "毎月1日の0時00分"),
    ("@yearly", "1月1日の0時00分"),
    ("0 0 13 * 5", "毎月13日、および毎週金曜日の0時00分"),
    ("0 0 */2 * 1", "毎月奇数日のうち月曜日に当たる日の0時00分"),
    ("0 0 2-31/2 * *", "毎月偶数日の0時00分"),
    ("0 0 1-31/3 * *", "毎月1日〜31日（3日ごと）の0時00分"),
    ("0 0 1-7 * 1", "毎月1日〜7日、および毎週月曜日の0時00分"),
    ("0 0 * * 5#2", "毎月第2金曜日の0時00分"),
    ("0 0 * * 5L", "毎月最終金曜日の0時00分"),
    ("0 0 LW * *", "毎月最後の平日（月〜金曜日）の0時00分"),
    ("0 0 31 * *", "毎月31日（その日のある月のみ）の0時00分"),
    ("0 0 29 2 *", "2月29日（うるう年のみ）の0時00分"),
    ("0 0 1 1,4,7,10 *", "1月、4月、7月、10月の1日の0時00分"),
    ("0 0 * 7,8 *", "7月と8月の毎日0時00分"),
    ("0 9 * 1-3 mon", "1月〜3月の毎週月曜日の9時00分"),
    ("0 9 * * sat,sun", "毎週土・日曜日の9時00分"),
    ("0 9 * * 1,3,5", "毎週月・水・金曜日の9時00分"),
    ("0 9 * * fri-mon", "毎週金〜月曜日の9時00分"),
    ("0 9 * * 7", "毎週日曜日の9時00分"),
    ("0 9 1,L * *", "毎月1日と末日の9時00分"),
    ("*/7 * * * *", "毎時0分から56分まで7分ごと"),
    ("0-30/10 * * * *", "毎時0分から30分まで10分ごと"),
    ("5/10 * * * *", "毎時5分から55分まで10分ごと"),
    ("5/10 9-17 * * *", "毎日9時05分から17時55分まで10分ごと"),
    ("* 9 * * *", "毎日9時00分から9時59分まで毎分"),
    ("0 0-23 * * *", "毎時0分"),
    ("*/40 9-10 * * *", "毎日9・10時台の毎時0分と40分"),
    ("5,17 9-17 * * *", "毎日9時台から17時台の毎時5分と17分"),
    ("0 1,2,5,9,12,13,17,20,22 * * *", "毎日1・2・5・9・12・13・17・20・22時台の毎時0分"),
    ("*/20 8-18/2 * * *", "毎日8・10・12・14・16・18時台に20分ごと"),
    ("0 0 * * 5#5", "毎月第5金曜日（その日のある月のみ）の0時00分"),
    ("0 0 1-5,10,20-25 * *", "毎月1日〜5日、10日、20日〜25日の0時00分"),
    ("0 0 1 1-3 *", "1月〜3月の1日の0時00分"),
    ("0 0 * 11-2 *", "11月〜2月の毎日0時00分"),
    ("0 12 13 6 5", "6月13日、および6月の毎週金曜日の12時00分"),
    ("0 0 * * mon,5#2", "毎月第2金曜日、および毎週月曜日の0時00分"),
    ("0 9-11,14-16 * * *", "毎日9時00分から11時00分までと14時00分から16時00分まで、1時間ごと"),
    ("*/10 9-11,14-16 * * *", "毎日9時00分から11時50分までと14時00分から16時50分まで、10分ごと"),
    ("0 12 1 * 1-5", "毎月1日、および毎週月〜金曜日の12時00分"),
    ("0 0 1-31 * 1", "毎日0時00分"),
    ("3-9,40 * * * *", "毎時3〜9分と40分"),
]
JUMPING_LINES = [
    ("*/5 * * * *", "5分ごと"),
    ("0 0-23 * * *", "毎時0分（時計の時刻で数える）"),
    ("*/40 9-10 * * *", "毎日9・10時台の毎時0分と40分（経過時間で数える）"),
    ("0-59/5 9-17 * * *", "毎日9時00分から17時55分まで5分ごと（時計の時刻で数える）"),
    ("0 9 * * *", "毎日9時00分"),
]
CRON_OBJECTS = [
    ({"hour": "10"}, "毎日10時00分から10時59分まで毎分"),
    ({"hour": "9", "minute": "0"}, "毎日9時00分"),
    ({"second": "*"}, "毎秒"),
    ({"second": "*/15"}, "15秒ごと"),
    ({"second": "30"}, "毎分30秒"),
    (
        {"second": "0,20,50", "minute": "0", "hour": "3"},
        "毎日3時00分00秒、3時00分20秒、3時00分50秒",
    ),
    ({"second": "0,20,50", "hour": "3"}, "毎日3時台の毎分0秒、20秒、50秒"),
    ({"second": "*/10", "minute": "0-5"}, "毎時0〜5分に10秒ごと"),
    (
        {"day": "13", "day_of_week": "fri", "hour": "0", "minute": "0"},
        "毎月13日（金曜日に当たる場合のみ）の0時00分",
    ),
    ({"day": "2nd fri", "hour": "9", "minute": "0"}, "毎月第2金曜日の9時00分"),
    ({"day": "last", "hour": "9", "minute": "0"}, "毎月末日の9時00分"),
    ({"day": "last sun,1", "hour": "9", "minute": "0"}, "毎月1日と最終日曜日の9時00分"),
    (
        {"week": "1-10", "day_of_week": "mon", "hour": "9", "minute": "0"},
        "ISO週番号1〜10の週の毎週月曜日の9時00分",
    ),
    (
        {"year": "2030", "month": "1", "day": "1", "hour": "0", "minute": "0"},
        "2030年1月1日の0時00分",
    ),
    ({"year": "2099"}, "2099年、毎分"),
    ({"year": "2026-2030/2", "hour": "9", "minute": "0"}, "2026年、2028年、2030年の毎日9時00分"),
    ({"year": "*/2", "hour": "9", "minute": "0"}, "1970年〜9998年（2年ごと）の毎日9時00分"),
    ({"week": "*/2", "minute": "0"}, "ISO週番号1〜53（2週ごと）の週、毎時0分"),
    (
        {"day": "1-7", "day_of_week": "1-5", "hour": "0", "minute": "0"},
        "毎月1日〜7日のうち月〜金曜日に当たる日の0時00分",
    ),
    (
        {"day": "1-7", "day_of_week": "mon,wed", "hour": "0", "minute": "0"},
        "毎月1日〜7日のうち月・水曜日に当たる日の0時00分",
    ),
    (
        {"year": "2026-2028", "week": "5", "day_of_week": "mon-fri", "hour": "9", "minute": "0"},
        "2026年〜2028年のISO週番号5の週の毎週月〜金曜日の9時00分",
    ),
    ({"minute": "0"}, "毎時0分"),
    (
        {"year": "2027,2029,2032,2034,2037,2039,2042,2044,2047,2049,2052,2054,2057", "minute": "0"},
        "2027,2029,2032,2034,2037,2039,2042,2044,2047,2049,2052,2054,2057に当たる年、毎時0分",
    ),
    ({"second": "1"}, "毎分1秒"),
]
WHOLE_TEXTS = [
    (interval_of(timedelta(minutes=10)), "設定した時点から10分ごと（Asia/Tokyo）"),
    (interval_of(timedelta(hours=1)), "設定した時点から1時間ごと（Asia/Tokyo）"),
    (interval_of(timedelta(days=1)), "設定した時点から24時間ごと（Asia/Tokyo）"),
    (interval_of(timedelta(days=7)), "設定した時点から7日ごと（Asia/Tokyo）"),
    (interval_of(timedelta(hours=26, seconds=1)), "設定した時点から1日2時間1秒ごと（Asia/Tokyo）"),
    (
        interval_of(timedelta(hours=2), start_at=datetime(2026, 1, 1, tzinfo=UTC)),
        "2026年1月1日9時00分から2時間ごと（Asia/Tokyo）",
    ),
    (
        date_of(datetime(2026, 6, 1, tzinfo=UTC)),
        "2026年6月1日（月）9時00分に1回だけ（Asia/Tokyo、UTC+09:00）",
    ),
    (
        date_of(datetime(2026, 6, 1, 0, 0, 1, 500000, tzinfo=UTC)),
        "2026年6月1日（月）9時00分01.5秒に1回だけ（Asia/Tokyo、UTC+09:00）",
    ),
    (
        date_of(datetime(2026, 11, 1, 6, 30, tzinfo=UTC), timezone="America/New_York"),
        "2026年11月1日（日）1時30分に1回だけ（America/New_York、UTC-05:00）",
    ),
    (
        crontab_of(
            "0 9 * * *",
            start_at=datetime(2026, 1, 1, tzinfo=UTC),
            end_at=datetime(2026, 12, 31, 9, tzinfo=UTC),
        ),
        "毎日9時00分（Asia/Tokyo）、2026年1月1日9時00分から2026年12月31日18時00分まで",
    ),
    (
        crontab_of(
            "0 9 * * *",
            end_at=datetime(2026, 11, 1, 6, 30, tzinfo=UTC),
            timezone="America/New_York",
        ),
        "毎日9時00分（America/New_York）、2026年11月1日1時30分（UTC-05:00）まで",
    ),
    (
        crontab_of("0 9 * * *", jitter=timedelta(seconds=30)),
        "毎日9時00分（Asia/Tokyo）。毎回の開始を最大30秒遅らせる",
    ),
    (
        crontab_of("30 2 * * *", timezone="America/New_York", dst_gap=DstGap.SKIP),
        "毎日2時30分（America/New_York）。時計が進んで存在しない時刻には実行しない",
    ),
    (
        crontab_of(
            "30 2 * * *", timezone="America/New_York", dst_gap=DstGap.SHIFT, dst_fold=DstFold.BOTH
        ),
        "毎日2時30分（America/New_York）。時計が進んで存在しない時刻は、進んだ分だけ遅らせて実行する。時計が戻って2度ある時刻は、2度とも実行する",
    ),
    (
        crontab_of("30 2 * * *", timezone="America/New_York", dst_fold=DstFold.SECOND),
        "毎日2時30分（America/New_York）。時計が戻って2度ある時刻は、2度目に実行する",
    ),
    (crontab_of("30 2 * * *", dst_gap=DstGap.SKIP), "毎日2時30分（Asia/Tokyo）"),
]


@pytest.mark.parametrize(("line", "expected"), CRONTAB_LINES)
def test_crontab_lines(line, expected):
    """A crontab line is told by the times it means."""
    assert f"{expected}（Asia/Tokyo）" == describe_schedule(crontab_of(line))


@pytest.mark.parametrize(("line", "expected"), JUMPING_LINES)
def test_lines_in_a_zone_whose_clock_jumps(line, expected):
    """Where clocks jump, the text tells elapsed time from fixed times if its form does not."""
    schedule = crontab_of(line, timezone="America/New_York")
    assert f"{expected}（America/New_York）" == describe_schedule(schedule)


@pytest.mark.parametrize(("fields", "expected"), CRON_OBJECTS)
def test_cron_objects(fields, expected):
    """A cron object is told by the times it means, those of omitted fields too."""
    assert f"{expected}（Asia/Tokyo）" == describe_schedule(cron_of(**fields))


@pytest.mark.parametrize(("schedule", "expected"), WHOLE_TEXTS)
def test_whole_texts(schedule, expected):
    """Intervals, dates, bounds, jitter and policies stand in the text."""
    assert expected == describe_schedule(schedule)


@pytest.mark.parametrize(
    ("period", "expected"),
    [
        (timedelta(0), "0秒"),
        (timedelta(days=1, hours=2), "1日2時間"),
        (timedelta(seconds=1.5), "1秒500ミリ秒"),
    ],
)
def test_periods(period, expected):
    """A length of time is told in its units."""
    assert expected == format_period(period)
