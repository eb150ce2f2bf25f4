"""The explanation over HTTP: the time as it is asked, the answer as it is documented."""

import pytest

pytestmark = pytest.mark.asyncio(loop_scope="module")

JOBS = "/api/v1/jobs"


async def explain(api, job_id, **query):
    """Ask why."""
    return await api.http.get(f"{JOBS}/{job_id}/explain", params=query)


async def test_a_run_to_come_is_explained(api):
    """A coming time of a job is told in both languages, with the facts, in the job's zone."""
    job_id = await api.stored(cron={"year": "2099", "month": 1, "day": 1, "hour": 9, "minute": 0})
    answer = await explain(api, job_id, at="2099-01-01T09:00")
    body = answer.json()

    assert answer.status_code == 200
    assert (body["job_id"], body["verdict"]) == (job_id, "will_run")
    assert body["at"] == "2099-01-01T09:00:00+09:00"
    assert body["at_utc"] == "2099-01-01T00:00:00+00:00"
    assert body["sentence"] == {
        "en": "It will run on 1 January 2099, 09:00 (UTC+09:00), as its schedule names that time.",
        "ja": "2099年1月1日9時00分（UTC+09:00）に、スケジュールに従って実行される予定です。",
    }
    assert body["facts"]["revision"]["actor"] == "127.0.0.1"


async def test_a_missed_run_is_explained_by_its_cause(api):
    """A run that failed carries the execution and what the catalogue says of its reason."""
    job_id = await api.stored(
        schedule_type="interval", interval={"seconds": 1}, target_url="http://127.0.0.1:9/"
    )
    (execution, *_) = await api.finished(job_id)
    body = (await explain(api, job_id, at=execution["scheduled_for"])).json()
    detail = await api.http.get(f"/api/v1/executions/{execution['execution_id']}")
    await api.http.delete(f"{JOBS}/{job_id}")

    assert (body["verdict"], body["facts"]["reason"]) == ("failed", "connect")
    assert body["facts"]["due_at"] == execution["scheduled_for"]
    assert body["facts"]["execution"]["execution_id"] == execution["execution_id"]
    assert body["facts"]["explanation"] == detail.json()["explanation"]


async def test_the_present_is_meant_if_no_time_is_given(api):
    """Without a time the answer is about now."""
    body = (await explain(api, await api.stored())).json()

    assert body["verdict"] in {"not_due", "not_created"}


async def test_a_plus_sign_may_be_lost(api):
    """An offset whose plus sign was not escaped in the address is understood."""
    job_id = await api.stored()
    answer = await api.http.get(f"{JOBS}/{job_id}/explain?at=2099-01-01T09:00:00+02:00")

    assert answer.json()["at_utc"] == "2099-01-01T07:00:00+00:00"


@pytest.mark.parametrize(
    ("at", "begin"),
    [
        ("2099-01-01", "2099-01-01T00:00:00+09:00"),
        ("2099-01-01T09:00:30.75", "2099-01-01T09:00:30+09:00"),
        ("2099-01-01T09:00Z", "2099-01-01T18:00:00+09:00"),
    ],
)
async def test_times_as_they_may_be_written(api, at, begin):
    """A date, a minute and a second are read in the job's zone, or by their offset."""
    job_id = await api.stored()

    assert (await explain(api, job_id, at=at)).json()["at"] == begin


@pytest.mark.parametrize(
    ("at", "words"),
    [
        ("soon", "must be a time such as"),
        ("2099-13-01", "must be a time such as"),
        ("1970-01-01", "between the years 1971 and 2198"),
        ("9999-12-31T23:59:59", "between the years 1971 and 2198"),
        ("1735689600", "must be a time such as"),
        ("2" * 65, "at most 64"),
    ],
)
async def test_what_is_no_time_is_refused(api, at, words):
    """What cannot be read as a time is a 422 that says what can."""
    answer = await explain(api, await api.stored(), at=at)

    assert answer.status_code == 422
    assert words in answer.text


async def test_an_unknown_job_is_not_found(api):
    """A job that never was cannot be explained."""
    answer = await explain(api, "never")

    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")


async def test_a_deleted_job_is_explained(api):
    """Of a deleted job it is told who deleted it."""
    job_id = await api.stored()
    await api.http.delete(f"{JOBS}/{job_id}")
    body = (await explain(api, job_id, at="2099-01-01T00:00")).json()

    assert body["verdict"] == "deleted"
    assert body["facts"]["ended_by"]["actor"] == "127.0.0.1"
