"""Cancelling one execution: waiting, running, over, unknown."""

import asyncio

import pytest
import pytest_asyncio

from tests.support.raw_server import RawServer, hang, reply
from tests.support.service import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def silent():
    """Take every request and answer none."""
    async with RawServer((hang,)) as server:
        yield server


async def cancel(api, execution_id):
    return await api.http.post(f"/api/v1/executions/{execution_id}/cancel")


async def read(api, execution_id):
    return (await api.http.get(f"/api/v1/executions/{execution_id}")).json()


async def triggered(api, job_id):
    return (await api.act(job_id, "trigger")).json()["execution_id"]


async def running(api, job_id):
    """Trigger a job and wait until its execution runs."""
    execution_id = await triggered(api, job_id)

    async def runs():
        return (await read(api, execution_id))["status"] == "running"

    await eventually(runs)
    return execution_id


@pytest.mark.parametrize("on_crash", ["retry", "fail"])
async def test_a_running_execution(api, silent, on_crash):
    """A running execution ends as cancelled by a user, whatever its job says of crashes."""
    job_id = await api.stored(
        target_url=silent.url(), max_retries=5, retry_backoff_sec=0.01, on_crash=on_crash
    )
    execution_id = await running(api, job_id)
    answer = await cancel(api, execution_id)
    assert answer.status_code == 200
    assert answer.json() == {
        "execution_id": execution_id, "job_id": job_id, "status": "cancelled", "detail": None,
    }  # fmt: skip
    found = await read(api, execution_id)
    assert (found["status"], found["reason"], found["attempts"]) == ("cancelled", "user", 1)
    assert "cancelled" in found["error_message"]
    assert found["explanation"]["title"]["en"] == "Cancelled by a user"
    (attempt,) = found["attempt_list"]
    assert (attempt["outcome"], attempt["reason"]) == ("interrupted", "user")
    await silent.wait_for(lambda: silent.open_count == 0)


async def test_a_waiting_execution(api, silent):
    """What waits behind a running one is cancelled before it begins, and never sent."""
    job_id = await api.stored(target_url=silent.url())
    first = await running(api, job_id)
    second = await triggered(api, job_id)
    assert (await cancel(api, second)).json()["status"] == "cancelled"
    found = await read(api, second)
    assert (found["status"], found["reason"], found["attempts"]) == ("cancelled", "user", 0)
    assert found["started_at"] is None
    assert (await read(api, first))["status"] == "running"
    await cancel(api, first)


async def test_a_retry_to_come(api):
    """An execution that waits for its next attempt is cancelled; its attempts stay told."""
    job_id = await api.stored(max_retries=3, retry_backoff_sec=600)
    execution_id = await triggered(api, job_id)

    async def retrying():
        return (await read(api, execution_id))["status"] == "retrying"

    await eventually(retrying)
    assert (await cancel(api, execution_id)).status_code == 200
    found = await read(api, execution_id)
    assert (found["status"], found["next_attempt_at"]) == ("cancelled", None)
    assert len(found["attempt_list"]) == 1


async def test_cancelling_twice_and_at_once(api, silent):
    """Repeated, or sent several times at once, it answers the same."""
    execution_id = await running(api, await api.stored(target_url=silent.url()))
    answers = await asyncio.gather(*(cancel(api, execution_id) for _ in range(4)))
    answers.append(await cancel(api, execution_id))
    assert {answer.status_code for answer in answers} == {200}
    assert {answer.json()["status"] for answer in answers} == {"cancelled"}


async def test_one_that_is_over(api):
    """An execution that ended otherwise is 409, and the sentence names how."""
    async with RawServer((reply(),)) as target:
        execution = await api.run(target_url=target.url())
    answer = await cancel(api, execution["execution_id"])
    assert (answer.status_code, answer.json()["code"]) == (409, "execution_over")
    assert "completed" in answer.json()["detail"]


async def test_one_that_was_cancelled_for_another_reason(api, silent):
    """What a pause has cancelled, no user has: it is 409."""
    job_id = await api.stored(target_url=silent.url())
    first, second = await running(api, job_id), await triggered(api, job_id)
    await api.act(job_id, "pause")
    answer = await cancel(api, second)
    assert (answer.status_code, answer.json()["code"]) == (409, "execution_over")
    assert (await cancel(api, first)).status_code == 200


async def test_one_that_never_was(api):
    """An unknown execution is 404."""
    answer = await cancel(api, "exe_none")
    assert (answer.status_code, answer.json()["code"]) == (404, "execution_not_found")


async def test_a_cancelled_run_gives_its_place_back(api, silent):
    """Once cancelled, the job's next run starts at once."""
    job_id = await api.stored(target_url=silent.url())
    await cancel(api, await running(api, job_id))
    await cancel(api, await running(api, job_id))
