"""Every verdict that an explanation can come to, over a database that the real engine wrote."""

from datetime import datetime, timedelta

import pytest

from app.domain.catalogue import reason_entry
from app.domain.execution import ExecutionStatus, Reason
from app.domain.ids import JobId
from app.domain.policies import CatchUp, OverlapPolicy
from app.domain.schedule import DateRule, DstFold, DstGap, Schedule
from app.engine.auditor import Auditor, AuditorOptions, AuditRequest
from app.engine.explanation import Verdict
from app.services.explain_service import ExplainOptions
from app.services.job_service import NewJob
from tests.support import scenes
from tests.support.builders import make_definition, make_delivery, make_policy
from tests.support.homes import Home
from tests.support.pipeline import OK
from tests.support.scenes import (
    AUTUMN,
    DAY,
    HOUR,
    MORNING,
    SCENES,
    SECOND,
    SPRING,
    open_scene,
)
from tests.support.schedules import cron_of, crontab_of, interval_of
from tests.support.service import eventually

MINUTE = timedelta(minutes=1)
NINE = "2026-06-01T09:00"
TOKYO = "+09:00"
# Verdicts that a row's status stands for, where the words differ.
BY_STATUS = {"completed": "ran", "queued": "waiting"}


def told(answer, *parts: str) -> None:
    """Check that a sentence of each language is one, whole, and says some things."""
    english, japanese = answer["sentence"]["en"], answer["sentence"]["ja"]
    assert english.endswith(".")
    assert ". " not in english
    assert japanese.endswith("。")
    assert japanese.count("。") == 1
    for text in (english, japanese):
        assert "None" not in text
        assert "  " not in text
    for part in parts:
        assert part in english


@pytest.mark.parametrize(("reason", "status"), SCENES)
async def test_a_reason_is_explained(home: Home, reason, status):
    """For each reason that the engine gives, the answer says it in words, with cause and fix."""
    plot = SCENES[reason, status]
    async with open_scene(home, *plot.outcomes, at=plot.at) as scene:
        await plot.play(scene)
        row = await scene.row(reason, status)
        answer = await scene.explain(row.scheduled_for.isoformat())
    facts = answer["facts"]
    assert answer["verdict"] == status
    assert facts["reason"] == reason
    assert facts["explanation"]["fix"]["ja"] == reason_entry(reason).fix.ja
    assert facts["execution"]["execution_id"] == row.id
    assert datetime.fromisoformat(facts["due_at"]) == row.scheduled_for
    told(answer)


async def test_a_run_on_time(home: Home):
    """A run that completed is told with its status, its lateness and the rule in force."""
    async with open_scene(home) as scene:
        await scenes.run_once(scene)
        answer = await scene.explain(NINE)
    facts = answer["facts"]
    assert (answer["verdict"], facts["lateness_ms"]) == (Verdict.RAN, 0)
    assert facts["schedule"]["en"] == "At 09:00 every day (Asia/Tokyo)"
    assert facts["revision"]["number"] == 1
    assert facts["revision"]["actor"] == "ann"
    assert facts["next_due"] == "2026-06-02T09:00:00+09:00"
    assert answer["sentence"] == {
        "en": "It ran on time: due 1 June 2026, 09:00 (UTC+09:00), it started at once and "
        "completed with HTTP status 200.",
        "ja": "2026年6月1日9時00分（UTC+09:00）の予定どおり、すぐに始まり、"
        "HTTPステータス200を受け取って完了しました。",
    }


async def test_a_late_run(home: Home):
    """A run that started later than planned says by how much."""
    async with open_scene(home) as scene:
        await scene.store()
        await scene.pass_time(MINUTE + 20 * SECOND)
        answer = await scene.explain(NINE)
    assert (answer["verdict"], answer["facts"]["lateness_ms"]) == ("ran", 20_000)
    told(answer, "It ran late", "20 seconds later", "at 09:00:20")


async def test_a_run_that_was_caught_up(home: Home):
    """A run made up for after a downtime says from when to when the service was down."""
    async with open_scene(home) as scene:
        await scenes.sleep_over(scene)
        answer = await scene.explain("2026-06-03T09:00")
    assert answer["verdict"] == "ran"
    assert answer["facts"]["downtime"] == {
        "kind": "stopped",
        "from": "2026-06-01T08:59:00+09:00",
        "until": "2026-06-04T08:59:00+09:00",
    }
    told(answer, "It was caught up", "while the service was not running from 1 June 2026, 08:59")


async def test_a_retried_run_says_how_many_attempts(home: Home):
    """A run that completed at its second attempt says so."""
    async with open_scene(home, scenes.REFUSED, OK) as scene:
        await scenes.use_up_retries(scene)
        answer = await scene.explain(NINE)
    assert answer["verdict"] == "ran"
    told(answer, "after 2 attempts")


async def test_an_overlap_names_what_was_in_the_way(home: Home):
    """A run skipped for overlap names the execution that was not over then."""
    async with open_scene(home) as scene:
        await scenes.overlap(scene)
        first = (await scene.rows())[0]
        scene.service.runner.gate.set()
        await scene.service.quiet()
        answer = await scene.explain("2026-06-01T10:00")
    assert answer["facts"]["overlap_execution_id"] == first.id
    told(answer, first.id, "overlap_policy skip")


async def test_a_run_cut_short_names_the_next_one(home: Home):
    """A run that made way names the run it made way for."""
    async with open_scene(home, scenes.REFUSED, OK) as scene:
        await scenes.make_way(scene)
        second = (await scene.rows())[1]
        answer = await scene.explain(NINE)
    assert (answer["verdict"], answer["facts"]["overlap_execution_id"]) == ("cancelled", second.id)


async def test_a_coalesced_run_names_what_stands_for_it(home: Home):
    """A run merged into a newer one names that one, and the downtime that caused it."""
    async with open_scene(home) as scene:
        await scenes.sleep_over(scene)
        newest = (await scene.row(None, ExecutionStatus.COMPLETED)).id
        answer = await scene.explain("2026-06-02T09:00")
    assert answer["facts"]["merged_into_execution_id"] == newest
    assert answer["facts"]["downtime"]["kind"] == "stopped"
    told(answer, newest)


async def test_a_pause_says_who_and_when(home: Home):
    """An instant inside a pause says who paused, who resumed, and when; and of how many it is."""
    async with open_scene(home) as scene:
        await scenes.pause_over(scene)
        answer = await scene.explain("2026-06-02T09:00")
    assert answer["facts"]["pause"] == {
        "paused_at": "2026-06-01T08:59:00+09:00",
        "paused_by": "ann",
        "resumed_at": "2026-06-04T08:59:00+09:00",
        "resumed_by": "bob",
    }
    assert answer["facts"]["stretch"] == {
        "from": "2026-06-01T09:00:00+09:00",
        "until": "2026-06-03T09:00:00+09:00",
        "count": 3,
    }
    assert answer["facts"]["due_at"] == "2026-06-02T09:00:00+09:00"
    told(answer, "by ann on 1 June 2026, 08:59")


async def test_an_edit_within_a_pause_does_not_hide_who_paused(home: Home):
    """A paused job that was edited still says who paused it."""
    async with open_scene(home) as scene:
        await scene.store()
        await scene.pause()
        await scene.pass_time(HOUR)
        await scene.store(crontab_of("0 12 * * *"), actor="eve")
        answer = await scene.explain("2026-06-01T12:00")
    assert answer["verdict"] == "paused"
    assert answer["facts"]["pause"]["paused_by"] == "ann"
    assert answer["facts"]["revision"]["actor"] == "eve"


async def test_a_time_within_a_stretch_that_the_rule_does_not_name(home: Home):
    """A stretch of rows does not answer for times between its instants."""
    async with open_scene(home) as scene:
        await scenes.pause_over(scene)
        answer = await scene.explain("2026-06-02T10:00")
    assert (answer["verdict"], answer["facts"]["execution"]) == ("not_due", None)


async def test_a_cancellation_by_pause_says_who(home: Home):
    """A run cancelled by a pause says who paused, and when."""
    async with open_scene(home, scenes.REFUSED) as scene:
        await scenes.pause_before_retry(scene)
        answer = await scene.explain(NINE)
    assert answer["facts"]["pause"]["paused_by"] == "ann"
    assert answer["facts"]["pause"]["resumed_at"] is None
    told(answer, "between two attempts")


async def test_a_cancellation_by_deletion_says_who(home: Home):
    """A run cancelled by a deletion says who deleted, and when."""
    async with open_scene(home, scenes.REFUSED) as scene:
        await scenes.delete_before_retry(scene)
        answer = await scene.explain(NINE)
    assert answer["facts"]["ended_by"]["actor"] == "bob"
    told(answer, "deleted by bob")


async def test_a_step_of_the_clock_explains_lateness(home: Home):
    """A run found too late because the machine's clock was set forward says so."""
    async with open_scene(home) as scene:
        await scenes.jump_over(scene)
        answer = await scene.explain(NINE)
    assert answer["facts"]["downtime"]["kind"] == "clock_set_forward"
    assert answer["facts"]["lateness_ms"] == 59 * 60_000
    told(answer, "59 minutes late", "misfire_grace_time (30 seconds)", "clock was set forward")


async def test_a_missed_run_beyond_a_window_names_the_window(home: Home):
    """A run beyond the catch-up limits names them."""
    policy = make_policy(catch_up=CatchUp.ALL, catch_up_window=HOUR)
    async with open_scene(home) as scene:
        await scene.store(policy=policy)
        await scene.restart_after(3 * DAY)
        answer = await scene.explain(NINE)
    assert answer["facts"]["reason"] == Reason.LIMIT
    told(answer, "at most 100, none older than 1 hour")


async def test_a_run_under_way(home: Home):
    """A run that is not over says since when it runs."""
    async with open_scene(home) as scene:
        scene.service.runner.gate.clear()
        await scenes.run_once(scene)
        answer = await scene.explain(NINE)
    assert (answer["verdict"], answer["facts"]["reason"]) == ("running", None)
    told(answer, "it started at 09:00:00")


async def test_a_run_that_waits_for_its_job(home: Home):
    """A queued run names the run of the same job that has the slot."""
    async with open_scene(home) as scene:
        scene.service.runner.gate.clear()
        policy = make_policy(overlap=OverlapPolicy.QUEUE_ONE)
        await scene.store(scenes.HOURLY, policy=policy, delivery=make_delivery(timeout=DAY))
        await scene.pass_time(MINUTE)
        await scene.pass_time(HOUR)
        first = (await scene.rows())[0]
        answer = await scene.explain("2026-06-01T10:00")
    assert answer["verdict"] == "waiting"
    assert answer["facts"]["wait"] == {"kind": "job_slot", "until": None, "behind": first.id}
    told(answer, first.id)


@pytest.mark.parametrize(
    ("limits", "kind"),
    [
        ({"host_concurrency": 1}, "host_slot"),
        ({"concurrency": 1, "host_concurrency": 1}, "any_slot"),
    ],
)
async def test_a_run_that_waits_for_others(home: Home, limits, kind):
    """A queued run says whether its host's slots are taken, or all of them."""
    async with open_scene(home, **limits) as scene:
        scene.options = ExplainOptions(**{"concurrency": 200, **limits})
        scene.service.runner.gate.clear()
        other = NewJob(id=JobId("hog"), definition=make_definition(), replace_existing=True)
        await scene.pipeline.jobs.create(other, actor=None)
        await scene.pipeline.jobs.trigger(other.id)
        await scene.service.quiet()
        await scene.store()
        scene.clock.advance(MINUTE)
        await scene.service.poke()
        await scene.row(None, ExecutionStatus.QUEUED)
        answer = await scene.explain(NINE)
    assert (answer["verdict"], answer["facts"]["wait"]["kind"]) == ("waiting", kind)
    told(answer, "fewer runs")


async def test_a_run_whose_turn_it_is(home: Home):
    """A queued run that nothing keeps back says that it starts at any moment."""
    async with open_scene(home) as scene:
        await scene.store()
        scene.pipeline.stations.dispatcher.hold()
        scene.clock.advance(MINUTE)
        await scene.service.poke()
        await scene.row(None, ExecutionStatus.QUEUED)
        answer = await scene.explain(NINE)
    assert answer["facts"]["wait"]["kind"] == "turn"
    told(answer, "at any moment")


async def test_a_run_delayed_by_jitter(home: Home):
    """Jitter is told before, while and after it delays a start."""
    schedule = crontab_of("0 9 * * *", jitter=HOUR)
    async with open_scene(home) as scene:
        await scene.store(schedule)
        before = await scene.explain(NINE)
        await scene.pass_time(MINUTE)
        meanwhile = await scene.explain(NINE)
        starts = datetime.fromisoformat(before["facts"]["starts_at"])
        await scene.pass_time(starts - scene.clock.now())
        after = await scene.explain(NINE)
    assert MORNING + MINUTE < starts < MORNING + HOUR
    assert before["verdict"] == "will_run"
    told(before, "by its jitter")
    assert meanwhile["facts"]["wait"]["kind"] == "not_before"
    assert datetime.fromisoformat(meanwhile["facts"]["wait"]["until"]) == starts
    told(meanwhile, "delayed by jitter")
    assert after["verdict"] == "ran"
    told(after, "It ran on time", "later by its jitter")


async def test_a_run_to_come(home: Home):
    """A future instant of an active job will run; it does not start before its time."""
    async with open_scene(home) as scene:
        await scene.store()
        answer = await scene.explain("2027-01-01T09:00:00+09:00")
    assert answer["verdict"] == "will_run"
    assert answer["facts"]["starts_at"] == "2027-01-01T09:00:00+09:00"
    told(answer, "It will run on 1 January 2027, 09:00 (UTC+09:00)")


async def test_a_run_that_is_due_by_now(home: Home):
    """An instant that the scheduler has yet to take up is told as such, with its lateness."""
    async with open_scene(home) as scene:
        await scene.store()
        await scene.service.stop()
        await scene.open_idle()
        scene.clock.advance(MINUTE + 3 * SECOND)
        answer = await scene.explain(NINE)
    assert answer["verdict"] == "pending"
    told(answer, "3 seconds ago")


@pytest.mark.parametrize(
    ("schedule", "at", "mismatches"),
    [
        (crontab_of("0 9 * * *"), "2026-06-02T10:00", [("hour", "9", "10")]),
        (
            crontab_of("*/5 9 * * mon-fri"),
            "2026-06-06T09:03",
            [("day_of_week", "1-5", "sat"), ("minute", "*/5", "3")],
        ),
        (crontab_of("0 9 * * *"), "2026-06-02T09:00:30", [("second", "0", "30")]),
        (crontab_of("0 9 13 * fri"), "2026-06-13T09:01", [("minute", "0", "1")]),
        (
            crontab_of("0 9 13 * fri"),
            "2026-06-14T09:00",
            [("day", "13", "14"), ("day_of_week", "5", "sun")],
        ),
        (crontab_of("0 9 L * *"), "2026-06-29T09:00", [("day", "L", "29")]),
        (
            cron_of(year="2027", month="7", week="30", hour="23", minute="59", second="5"),
            "2026-06-02T22:58:06",
            [
                ("year", "2027", "2026"), ("month", "7", "6"), ("week", "30", "23"),
                ("hour", "23", "22"), ("minute", "59", "58"), ("second", "5", "6"),
            ],
        ),
        (
            crontab_of("0 9 * * *", start_at=MORNING + 10 * DAY),
            "2026-06-02T09:00",
            [("start_at", "2026-06-10T23:59:00+00:00", "2026-06-02T00:00:00+00:00")],
        ),
        (interval_of(HOUR), "2026-06-02T10:00", []),
    ],
)  # fmt: skip
async def test_a_time_that_the_rule_does_not_name(home: Home, schedule, at, mismatches):
    """What keeps a time from being due is told field by field, with the nearest instants."""
    async with open_scene(home) as scene:
        await scene.store(schedule)
        answer = await scene.explain(at)
    assert answer["verdict"] == "not_due"
    found = answer["facts"]["mismatches"]
    assert [(one["field"], one["wanted"], one["found"]) for one in found] == mismatches
    assert answer["facts"]["next_due"] is not None
    assert answer["facts"]["due_at"] is None
    told(answer)


async def test_an_instant_is_found_within_its_second(home: Home):
    """An interval's instants have fractions; the second they lie in names them."""
    async with open_scene(home, at=MORNING + SECOND / 4) as scene:
        await scene.store(interval_of(MINUTE))
        await scene.pass_time(MINUTE)
        answer = await scene.explain("2026-06-01T09:00:00")
        other = await scene.explain("2026-06-01T09:00:01")
    assert answer["verdict"] == "ran"
    assert answer["facts"]["due_at"] == "2026-06-01T09:00:00.250000+09:00"
    assert other["verdict"] == "not_due"


async def test_an_instant_is_found_within_its_minute(home: Home):
    """Asked for a minute, the answer is about the first instant within it."""
    async with open_scene(home, at=MORNING + 20 * SECOND) as scene:
        await scene.store(interval_of(MINUTE))
        await scene.pass_time(MINUTE)
        answer = await scene.explain(NINE)
        second = await scene.explain(f"{NINE}:00")
    assert (answer["verdict"], second["verdict"]) == ("ran", "not_due")
    assert answer["facts"]["due_at"] == "2026-06-01T09:00:20+09:00"


async def test_without_a_time_the_present_is_meant(home: Home):
    """When nothing is asked for, the answer is about now."""
    async with open_scene(home) as scene:
        await scenes.run_once(scene)
        answer = await scene.explain()
    assert (answer["at_utc"], answer["verdict"]) == ("2026-06-01T00:00:00+00:00", "ran")


async def test_the_schedule_has_ended(home: Home):
    """After the last instant of a schedule nothing is due any more, and the last one is named."""
    async with open_scene(home) as scene:
        await scene.store(Schedule(rule=DateRule(run_at=MORNING + MINUTE), timezone="Asia/Tokyo"))
        await scene.pass_time(HOUR)
        past = await scene.explain("2026-06-01T09:30")
        future = await scene.explain("2027-01-01T09:00")
        await scene.store(crontab_of("0 9 * * *", end_at=MORNING + 2 * DAY))
        bounded = await scene.explain("2026-06-05T09:00")
        await scene.pass_time(3 * DAY)
    assert [past["verdict"], future["verdict"]] == ["finished", "finished"]
    assert future["facts"]["previous_due"] == "2026-06-01T09:00:00+09:00"
    told(past, "It was not due", "its last time was 1 June 2026, 09:00")
    told(future, "It will not run")
    assert bounded["verdict"] == "finished"
    assert [one["field"] for one in bounded["facts"]["mismatches"]] == ["end_at"]


async def test_before_the_job_existed(home: Home):
    """A time before the creation says who created the job when, and its first time."""
    async with open_scene(home) as scene:
        await scene.store()
        answer = await scene.explain("2026-05-31T09:00")
    assert answer["verdict"] == "not_created"
    assert answer["facts"]["revision"] is None
    assert answer["facts"]["next_due"] == "2026-06-01T09:00:00+09:00"
    told(answer, "created later by ann", "its first time is 1 June 2026, 09:00")


async def test_a_moment_before_the_job_existed(home: Home):
    """An instant of the minute in which the job was created, but before, was too early for it."""
    async with open_scene(home, at=MORNING + MINUTE + 30 * SECOND) as scene:
        await scene.store()
        answer = await scene.explain(NINE)
        now = await scene.explain()
    assert (answer["verdict"], now["verdict"]) == ("not_created", "not_due")


async def test_after_the_deletion(home: Home):
    """A deleted job's past is known, and its future is not."""
    async with open_scene(home) as scene:
        await scenes.run_once(scene)
        await scene.pass_time(HOUR)
        await scene.delete()
        past = await scene.explain(NINE)
        after = await scene.explain("2026-06-02T09:00")
    assert (past["verdict"], after["verdict"]) == ("ran", "deleted")
    assert after["facts"]["ended_by"]["changed_at"] == "2026-06-01T10:00:00+09:00"
    told(after, "deleted by bob on 1 June 2026, 10:00")


async def test_a_job_made_again_keeps_its_first_life(home: Home):
    """A time of the first life is told by it, a time between both by the deletion."""
    async with open_scene(home) as scene:
        await scenes.run_once(scene)
        await scene.pass_time(HOUR)
        await scene.delete()
        await scene.pass_time(2 * DAY)
        await scene.store(crontab_of("0 12 * * *"))
        first, between, second = [
            await scene.explain(at) for at in (NINE, "2026-06-02T09:00", "2026-06-03T12:00")
        ]
    assert [first["verdict"], between["verdict"]] == ["ran", "deleted"]
    assert (second["verdict"], second["facts"]["previous_due"]) == ("will_run", None)


async def test_an_edit_tells_rule_and_change(home: Home):
    """A time before an edit is judged by the rule of that time, and the edit is told."""
    async with open_scene(home) as scene:
        await scene.store()
        await scene.pass_time(MINUTE)
        await scene.pass_time(HOUR)
        await scene.store(crontab_of("30 9 * * *"), actor="eve")
        before = await scene.explain("2026-06-01T09:30")
        since = await scene.explain("2026-06-02T09:00")
    assert before["verdict"] == "not_due"
    assert before["facts"]["schedule"]["en"] == "At 09:00 every day (Asia/Tokyo)"
    assert before["facts"]["schedule_changed"]["actor"] == "eve"
    told(before, "the schedule was changed by eve")
    assert since["facts"]["schedule"]["en"] == "At 09:30 every day (Asia/Tokyo)"
    assert since["facts"]["schedule_changed"] is None


async def test_a_paused_job(home: Home):
    """While a job is paused, past and coming instants say since when and by whom."""
    async with open_scene(home) as scene:
        await scene.store()
        await scene.pause()
        await scene.pass_time(HOUR)
        past = await scene.explain(NINE)
        future = await scene.explain("2026-06-02T09:00")
    assert [past["verdict"], future["verdict"]] == ["paused", "paused"]
    told(past, "It did not run", "begun by ann")
    told(future, "unless it is resumed before", "paused by ann on 1 June 2026, 08:59")


@pytest.mark.parametrize(
    ("column", "old", "new"), [("schedule", '"Asia/Tokyo"', "5"), ("policy", "{", "[")]
)
async def test_a_broken_job(home: Home, column, old, new):
    """A job that cannot be read says so for what comes, and keeps its past."""
    async with open_scene(home) as scene:
        await scenes.run_once(scene)
        await scene.service.stop()
        await scene.open_idle()
        await scene.damage(column, old, new)
        await scene.close_idle()
        scene.clock.advance(DAY)
        await scene.service.start()
        await eventually(scene.is_broken)
        answer = await scene.explain("2026-06-02T09:00:00+09:00")
        future = await scene.explain("2027-01-01T09:00:00+09:00")
        past = await scene.explain("2026-06-01T09:00:00+09:00")
    assert [a["verdict"] for a in (past, answer, future)] == ["ran", "broken", "broken"]
    assert (answer["facts"]["schedule"] is None) == (column == "schedule")
    told(answer, "It did not run", "the job is broken")
    told(future, "It will not run", "must be sent again")
    told(past)


async def test_a_zone_that_is_not_known_any_more(home: Home):
    """Where the zone data lacks the job's zone, times are read and told in UTC."""
    async with open_scene(home) as scene:
        await scenes.run_once(scene)
        await scene.service.stop()
        await scene.open_idle()
        await scene.damage("schedule", '"Asia/Tokyo"', '"Mars/Olympus"')
        past = await scene.explain("2026-06-01T00:00")
    assert (past["verdict"], past["at"]) == ("ran", "2026-06-01T00:00:00+00:00")
    told(past, "(UTC+00:00)")


async def test_history_that_is_not_kept(home: Home):
    """Where retention has removed rows, nothing is claimed about what became of an instant."""
    async with open_scene(home) as scene:
        await scenes.run_once(scene)
        await scene.alter("DELETE FROM executions")
        lost = await scene.explain(NINE)
        await scene.alter("UPDATE jobs SET pruned_us = cursor_us")
        pruned = await scene.explain(NINE)
    assert [lost["verdict"], pruned["verdict"]] == ["not_recorded", "not_kept"]
    told(lost, "no entry")
    told(pruned, "no longer kept")


@pytest.mark.parametrize(
    ("gap", "local"), [(DstGap.RUN_AFTER, "03:00"), (DstGap.SHIFT, "03:30"), (DstGap.SKIP, None)]
)
async def test_a_local_time_that_does_not_exist(home: Home, gap, local):
    """A run meant for a missing time is found by that time, before and after it."""
    schedule = crontab_of("30 2 * * *", timezone="America/New_York", dst_gap=gap)
    async with open_scene(home, at=SPRING) as scene:
        await scene.store(schedule)
        before = await scene.explain("2026-03-08T02:30")
        await scene.pass_time(3 * HOUR)
        await scene.pass_time(DAY)
        after = await scene.explain("2026-03-08T02:30")
    for answer in (before, after):
        assert (answer["facts"]["dst"]["kind"], answer["facts"]["dst"]["local"]) == (
            "gap",
            "2026-03-08T02:30:00",
        )
        told(answer, "the clock jumps over 8 March 2026, 02:30")
    if local is None:
        assert [before["verdict"], after["verdict"]] == ["clock_change", "skipped"]
        assert before["facts"]["due_at"] is None
    else:
        assert [before["verdict"], after["verdict"]] == ["will_run", "ran"]
        assert before["facts"]["due_at"] == f"2026-03-08T{local}:00-04:00"


async def test_a_missing_time_of_a_rule_by_elapsed_time(home: Home):
    """A rule that follows elapsed time makes nothing up for a time that does not exist."""
    async with open_scene(home, at=SPRING) as scene:
        await scene.store(crontab_of("*/30 2 * * *", timezone="America/New_York"))
        answer = await scene.explain("2026-03-08T02:30")
    assert (answer["verdict"], answer["facts"]["dst"]["kind"]) == ("not_due", "gap")
    told(answer, "the clock jumps over 8 March 2026, 02:30")


@pytest.mark.parametrize(
    ("fold", "first", "second"),
    [
        (DstFold.FIRST, "will_run", "clock_change"),
        (DstFold.SECOND, "clock_change", "will_run"),
        (DstFold.BOTH, "will_run", "will_run"),
    ],
)
async def test_a_local_time_that_comes_twice(home: Home, fold, first, second):
    """Both passes of a doubled time are told apart, and without an offset the rule's is meant."""
    schedule = crontab_of("30 1 * * *", timezone="America/New_York", dst_fold=fold)
    async with open_scene(home, at=AUTUMN) as scene:
        await scene.store(schedule)
        early = await scene.explain("2026-11-01T01:30-04:00")
        late = await scene.explain("2026-11-01T01:30-05:00")
        meant = await scene.explain("2026-11-01T01:30")
    assert [early["verdict"], late["verdict"]] == [first, second]
    assert meant["verdict"] == "will_run"
    for answer in (early, late, meant):
        assert answer["facts"]["dst"]["kind"] == "fold"
        told(answer, "the clock shows 1 November 2026, 01:30 twice")


async def test_a_clock_change_after_the_last_instant_is_told(home: Home):
    """A void time behind a schedule's last instant has no row; the proof misses none."""
    ends = AUTUMN + 12 * HOUR
    schedule = crontab_of("30 1 * * *", timezone="America/New_York", end_at=ends)
    async with open_scene(home, at=AUTUMN) as scene:
        await scene.store(schedule)
        await scene.pass_time(DAY)
        answer = await scene.explain("2026-11-01T01:30-05:00")
        rows = await scene.rows()
        await scene.store()
        await scene.pass_time(DAY)
        auditor = Auditor(
            unit_of_work=scene.pipeline.unit_of_work,
            clock=scene.clock,
            options=AuditorOptions(every=timedelta(0)),
        )
        audit = await auditor.verify(AuditRequest())
    assert answer["verdict"] == "clock_change"
    assert [row.status for row in rows] == [ExecutionStatus.COMPLETED]
    assert audit.tally.is_clean


async def test_a_doubled_time_that_the_rule_does_not_name(home: Home):
    """A doubled time that is not due is told to be doubled all the same."""
    async with open_scene(home, at=AUTUMN) as scene:
        await scene.store(crontab_of("0 5 * * *", timezone="America/New_York"))
        answer = await scene.explain("2026-11-01T01:30")
    assert answer["verdict"] == "not_due"
    assert answer["facts"]["dst"] == {
        "kind": "fold", "local": "2026-11-01T01:30:00", "code": None, "note": None
    }  # fmt: skip


async def test_runs_beside_the_schedule_are_told(home: Home):
    """A manual run about the time asked for is named, though it is not the schedule's."""
    async with open_scene(home) as scene:
        await scene.store()
        await scene.trigger()
        await scene.service.quiet()
        (manual,) = await scene.rows()
        answer = await scene.explain("2026-06-01T08:59")
    assert answer["verdict"] == "not_due"
    assert answer["facts"]["other_execution_ids"] == [manual.id]
    told(answer, "one run was wanted within a minute of it, though not by the schedule")


async def test_a_clock_set_back_shows_the_newer_row(home: Home):
    """An instant that came twice, the clock having been set back, is told by its last row."""
    async with open_scene(home) as scene:
        await scene.store(interval_of(MINUTE))
        await scene.pass_time(MINUTE)
        await scene.pass_time(MINUTE)
        scene.clock.step(-2 * MINUTE)
        await scene.service.compare_clocks()
        await scene.pass_time(MINUTE)
        await scene.pass_time(MINUTE)
        rows = [row for row in await scene.rows() if row.scheduled_for == MORNING + MINUTE]
        answer = await scene.explain(NINE)
    assert len(rows) == 2
    assert answer["facts"]["execution"]["execution_id"] == rows[-1].id


async def test_every_verdict_has_its_words():
    """Each verdict is written in both languages."""
    from app.schemas.words import explaining_english, explaining_japanese

    assert set(explaining_english._TELLERS) == set(Verdict)
    assert set(explaining_japanese._TELLERS) == set(Verdict)
