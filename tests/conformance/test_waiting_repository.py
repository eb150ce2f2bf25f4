"""What waits for a worker: what may start soonest, what backlogs hide, and what waits no more."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from datetime import timedelta

import pytest

from app.db.unit_of_work import ReadConnection
from app.domain.execution import ExecutionStatus, NewExecution, Reason, WaitingRun
from app.domain.ids import ExecutionId, JobId
from app.domain.job import HttpTarget
from app.domain.policies import OverlapPolicy, RunPolicy
from app.repositories import execution_repository, waiting_repository
from app.repositories.batch import parameters
from app.repositories.unreadable_repository import UnreadableRun
from app.repositories.waiting_repository import Waiting, runs_of_each_job, soonest_runs
from tests.conformance.builders import (
    JOB,
    NOW,
    NOW_US,
    SECOND,
    add_job,
    add_rows,
    break_job,
    claim_one,
    list_waiting,
    make_definition,
    make_ending,
    make_limits,
    make_row,
    make_unrun,
    record,
)
from tests.support.databases import Database

OTHER = JobId("other")
MICROSECOND = timedelta(microseconds=1)
# More than two pieces of an answer.
MANY = 2345


async def soonest(
    database: Database, *, held: Iterable[WaitingRun] = (), **limits: object
) -> Waiting:
    """Look at what may start soonest."""
    known = {run.id: run for run in held}
    return await database.read(soonest_runs, limits=make_limits(**limits), held=known)


async def of_each_job(
    database: Database, *, beside: Iterable[str] = (), **limits: object
) -> Waiting:
    """Look at all that waits."""
    return await database.read(
        runs_of_each_job, limits=make_limits(**limits), beside=frozenset(beside)
    )


LOOKS = pytest.mark.parametrize("look", [soonest, of_each_job], ids=["soonest", "of each job"])


def ids_of(found: Waiting) -> list[ExecutionId]:
    return [run.id for run in found.runs]


async def add_other(database: Database, **changes: object) -> None:
    """Add a job that calls another host."""
    target = HttpTarget(method="GET", url="http://other.test/")
    delivery = replace(make_definition().delivery, target=target)
    await add_job(database, OTHER, definition=make_definition(delivery=delivery, **changes))


async def add_in_order(database: Database, *rows: NewExecution) -> list[ExecutionId]:
    """Add rows that may start a microsecond after one another; tell their ids."""
    ordered = [
        replace(row, next_attempt_at=NOW + place * MICROSECOND) for place, row in enumerate(rows)
    ]
    await add_rows(database, *ordered)
    return [row.id for row in ordered]


async def cancel(database: Database, execution_id: ExecutionId) -> None:
    """End an execution that waits."""
    await database.write(
        execution_repository.cancel_one, execution_id, reason=Reason.USER, now_us=NOW_US
    )


@LOOKS
async def test_runs_may_start_by_an_instant_soonest_first(database: Database, look):
    """An execution that may start exactly then is among them, a microsecond later it is not."""
    await add_job(database)
    until = NOW + 10 * SECOND
    await add_rows(
        database,
        make_row(2, next_attempt_at=until),
        make_row(1, next_attempt_at=until + MICROSECOND),
        make_row(3, next_attempt_at=until - MICROSECOND),
        make_unrun(4),
    )
    assert ids_of(await look(database, until=until)) == [make_row(3).id, make_row(2).id]
    assert ids_of(await look(database, until=until, rows=1)) == [make_row(3).id]


@LOOKS
async def test_a_long_answer_is_whole_and_in_order(database: Database, look):
    """Thousands of runs come each once, soonest first, cut off where the limit says."""
    await add_job(database)
    ids = await add_in_order(database, *(make_row(number) for number in range(MANY)))
    found = await look(database, rows=MANY - 1, per_job=MANY)
    assert ids_of(found) == ids[:-1]
    assert (found.rows, found.most_of_a_job) == (MANY - 1, MANY - 1)
    assert found.by_host == Counter({"target.test:80": MANY - 1})


async def test_a_long_answer_comes_in_pieces(database: Database):
    """Neither row by row nor all at once: whoever shares the interpreter gets it in between."""
    await add_job(database)
    await add_in_order(database, *(make_row(number) for number in range(MANY)))

    def measure(connection: ReadConnection) -> list[int]:
        values = parameters([], until_us=NOW_US + 10**9, row_limit=MANY)
        return [len(piece) for piece in waiting_repository._SOONEST.fetch(connection, values)]

    assert await database.read(measure) == [1000, 1000, MANY - 2000]


@LOOKS
async def test_a_waiting_run_says_what_orders_and_limits_it(database: Database, look):
    """Host, job, earliest start and the job's slots come with a waiting run."""
    await add_job(database)
    await add_rows(database, make_row())
    expected = WaitingRun(
        id=make_row().id, job_id=JOB, host="target.test:80", next_attempt_at=NOW, job_slots=1
    )
    assert (await look(database)).runs == [expected]


@LOOKS
@pytest.mark.parametrize(
    ("overlap", "slots"),
    [(OverlapPolicy.ALLOW, None), (OverlapPolicy.QUEUE_ALL, 3), (OverlapPolicy.SKIP, 3)],
    ids=str,
)
async def test_slots_follow_the_overlap_policy(
    database: Database, look, overlap: OverlapPolicy, slots: int | None
):
    """A job that allows overlaps has any number of slots, else as many as its instances.

    A row written while its job allowed one at a time keeps to that.
    """
    policy = RunPolicy(misfire_grace=None, overlap=overlap, max_instances=3)
    await add_job(database, definition=make_definition(policy=policy))
    await add_in_order(database, make_row(1, exclusive=False), make_row(2, exclusive=True))
    assert [run.job_slots for run in (await look(database)).runs] == [slots, 1]


@LOOKS
async def test_a_run_that_waits_for_its_retry_waits_like_any_other(database: Database, look):
    """A retrying execution is read with the time of its next attempt, one that runs is not."""
    await add_job(database)
    await add_rows(database, make_row())
    run = await claim_one(database)
    assert (await look(database)).runs == []
    ending = make_ending(run, ExecutionStatus.RETRYING)
    await record(database, ending)
    (found,) = (await look(database)).runs
    assert (found.id, found.next_attempt_at) == (make_row().id, ending.next_attempt_at)


@LOOKS
async def test_an_unreadable_policy_does_not_hide_what_else_waits(database: Database, look):
    """Executions of a job that cannot be read are told apart, with the reason."""
    await add_job(database)
    await add_job(database, OTHER)
    await add_rows(database, make_row(), make_row(0, OTHER))
    await break_job(database, "policy", OTHER)
    found = await look(database)
    assert ids_of(found) == [make_row().id]
    problem = "the stored policy cannot be read"
    assert found.unreadable == [UnreadableRun(execution_id=make_row(0, OTHER).id, problem=problem)]


@LOOKS
async def test_of_each_job_only_its_soonest_are_read(database: Database, look):
    """A job's further runs are left where they are; another job's later run is read."""
    await add_job(database)
    await add_job(database, OTHER)
    own = [make_row(number) for number in range(5)]
    ids = await add_in_order(database, *own, make_row(9, OTHER))
    assert ids_of(await look(database, per_job=2)) == [*ids[:2], ids[-1]]


async def test_one_job_hides_no_other_where_all_is_looked_at(database: Database):
    """What may start soonest is a backlog's alone; of each job's soonest, others are too."""
    await add_job(database)
    await add_other(database)
    own = [make_row(number) for number in range(5)]
    ids = await add_in_order(database, *own, make_row(9, OTHER))
    found = await soonest(database, rows=3, per_job=2, crowd=3)
    assert ids_of(found) == ids[:2]
    assert (found.rows, found.most_of_a_job) == (3, 3)
    assert found.crowds(make_limits(crowd=3)) == {"target.test:80"}
    assert ids_of(await of_each_job(database, rows=3, per_job=2)) == [*ids[:2], ids[-1]]


async def test_all_is_looked_at_beside_some_hosts(database: Database):
    """A host whose runs are known takes no part of a limited answer."""
    await add_job(database)
    await add_other(database)
    own = [make_row(number) for number in range(5)]
    ids = await add_in_order(database, *own, make_row(8, OTHER), make_row(9, OTHER))
    found = await of_each_job(database, rows=3, beside={"target.test:80"})
    assert (ids_of(found), found.rows) == (ids[-2:], 2)
    found = await of_each_job(database, beside={"target.test:80", "other.test:80"})
    assert (ids_of(found), found.rows) == ([], 0)


async def test_what_is_held_is_not_told_again(database: Database):
    """It counts for its job and host all the same; what does not wait any more is gone."""
    await add_job(database)
    await add_in_order(database, *(make_row(number) for number in range(3)))
    ended, kept, fresh = await list_waiting(database)
    await cancel(database, ended.id)
    found = await soonest(database, held=[ended, kept])
    assert (ids_of(found), found.gone) == ([fresh.id], {ended.id})
    assert (found.rows, found.most_of_a_job) == (2, 2)


async def test_what_waits_for_another_time_is_told_anew(database: Database):
    """A run whose time was changed elsewhere, to later or to earlier, replaces what is held."""
    await add_job(database)
    await add_in_order(database, *(make_row(number) for number in range(3)))
    held = await list_waiting(database)
    put_off, same, forward = held
    told = [
        replace(put_off, next_attempt_at=put_off.next_attempt_at - SECOND),
        same,
        replace(forward, next_attempt_at=forward.next_attempt_at + SECOND),
    ]
    found = await soonest(database, held=told)
    assert found.runs == [put_off, forward]
    assert found.gone == {put_off.id, forward.id}


async def test_what_a_full_answer_does_not_reach_is_not_gone(database: Database):
    """Of what is held only that is gone which an answer would have had to tell."""
    await add_job(database)
    await add_in_order(database, *(make_row(number) for number in range(4)))
    ended, first, second, beyond = await list_waiting(database)
    await cancel(database, ended.id)
    found = await soonest(database, held=[ended, beyond], rows=2)
    assert (ids_of(found), found.gone) == ([first.id, second.id], {ended.id})


async def test_at_the_end_of_a_full_answer_a_crowds_runs_make_way(database: Database):
    """Whether they wait is not told; others to that host were read, and a small host's run stays.

    Among replicas a herd's runs are claimed elsewhere, all of one instant, more than an answer
    holds: what is not let go of is claimed in vain.
    """
    await add_job(database)
    await add_other(database)
    own = [make_row(number, next_attempt_at=NOW) for number in range(6)]
    await add_rows(database, *own, make_row(9, OTHER, next_attempt_at=NOW))
    found = await soonest(database, held=await list_waiting(database), rows=3, crowd=2)
    assert (found.runs, found.rows) == ([], 3)
    assert found.gone <= {row.id for row in own}
    assert len(found.gone) == len(own) - found.by_host["target.test:80"]
