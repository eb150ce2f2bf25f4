"""The leader among replicas: whoever holds one advisory lock on a connection of its own.

The lock says who ticks; the term, a row that grows with every new leader and is checked in each
tick's transaction, fences off whoever only believes to. ``pg_locks`` (locktype ``advisory``) and
``pg_stat_activity`` show the holder. The connection must reach PostgreSQL itself: behind a proxy
that pools transactions a session's lock means nothing.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import sqlalchemy as sa
import structlog
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from app.db.session import POOLED_NAME, SILENT_IN_TRANSACTION
from app.db.unit_of_work import FAULTS, UnitOfWork, WriteConnection
from app.domain.clock import Clock
from app.domain.errors import StorageInUseError, UnavailableError
from app.domain.tenure import Tenure
from app.repositories import leadership_repository
from app.repositories.leadership_repository import Leadership

log = structlog.get_logger(__name__)

# "MySL", in ASCII: the lock's key in this database.
LOCK_KEY = 0x4D79534C

_TRY = sa.text("SELECT pg_try_advisory_lock(:key)")
_PING = sa.text(
    "SELECT EXISTS (SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
    " AND classid = 0 AND objid = :key AND granted)"
)
# Silence is told by the database's own clock, from the holder's last statement.
_SILENT = sa.text(
    "SELECT a.pid FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid"
    " WHERE l.locktype = 'advisory' AND l.classid = 0 AND l.objid = :key AND l.granted"
    " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    " AND a.state_change < clock_timestamp() - make_interval(secs => :seconds)"
)
_END = sa.text("SELECT pg_terminate_backend(:pid)")
# A client that is silent between preparing a statement and executing it holds its locks with no
# limit of the server's: PostgreSQL calls such a session active, and interrupts no reading.
_END_SILENT_WRITES = sa.text(
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity AS a"
    " WHERE application_name = :name AND datname = current_database()"
    " AND state = 'active' AND wait_event IN ('ClientRead', 'ClientWrite')"
    " AND (backend_xid IS NOT NULL OR EXISTS (SELECT FROM pg_locks AS l WHERE l.pid = a.pid"
    " AND l.locktype = 'advisory' AND l.granted))"
    " AND state_change < clock_timestamp() - make_interval(secs => :seconds)"
    # Who may see a session may not always end it, and being refused is an error.
    " AND pg_has_role(usesysid, 'MEMBER')"
).bindparams(name=POOLED_NAME, seconds=SILENT_IN_TRANSACTION.total_seconds())


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaderOptions:
    """How a leader is kept and replaced."""

    # The leader pings, and the others try the lock, this often.
    every: timedelta = timedelta(milliseconds=500)
    # A ping that takes longer is a lost connection.
    ping_within: timedelta = timedelta(seconds=2)
    # A holder that is silent for so long is cut off; it stops trusting itself a second before.
    silence_max: timedelta = timedelta(seconds=10)
    trust_margin: timedelta = timedelta(seconds=1)

    def __post_init__(self) -> None:
        """Check that a living leader is never taken for a silent one."""
        if self.every + self.ping_within + self.trust_margin >= self.silence_max:
            raise ValueError("silence_max must be longer than a ping's interval and patience")


class PostgresLeader:
    """Campaigns for the lead in ``run``; ``on_gain`` and ``on_loss`` begin and end the ticking.

    ``on_gain`` is given the last sign of life of the leader before.
    """

    def __init__(
        self,
        *,
        engine: AsyncEngine,
        unit_of_work: UnitOfWork,
        owner: str,
        clock: Clock,
        options: LeaderOptions,
    ) -> None:
        self._engine = engine
        self._unit_of_work = unit_of_work
        self._clock = clock
        self._options = options
        self._owner = owner
        self._term = 0
        self._trusted_until = 0.0
        self._in_touch_since = math.inf
        self._resigned = asyncio.Event()
        self._tenure = Tenure()

    @property
    def in_touch_since(self) -> float:
        """Tell since when its connection has answered, whoever leads; infinite without one."""
        return self._in_touch_since

    @property
    def tenure(self) -> Tenure:
        """Tell how often the lead came and went."""
        return self._tenure

    @property
    def owner(self) -> str:
        """Name this process in the rows it claims; no other process ever has this name."""
        return self._owner

    @property
    def fence(self) -> int:
        """Tell the fence of this process's claims: its name is unique, so one is enough."""
        return 1

    @property
    def is_leading(self) -> bool:
        """Tell whether this process leads, as far as it can know."""
        return self._term > 0 and self._clock.monotonic() < self._trusted_until

    def guard(self, connection: WriteConnection) -> None:
        """Refuse the open transaction unless this process leads."""
        if not self.is_leading:
            raise StorageInUseError(
                "This process does not lead any more, or not yet; the replica that does goes on"
            )
        leadership_repository.guard_term(connection, term=self._term)

    def resign(self) -> None:
        """Give the lead up, and campaign no more."""
        self._resigned.set()

    async def run(
        self,
        on_gain: Callable[[datetime | None], Awaitable[None]],
        on_loss: Callable[[], Awaitable[None]],
    ) -> None:
        """Campaign and lead until resigned or cancelled; a lost connection begins anew."""
        while not self._resigned.is_set():
            try:
                async with self._engine.connect() as connection:
                    self._in_touch_since = self._clock.monotonic()
                    try:
                        if await self._acquire(connection):
                            await self._lead(connection, on_gain, on_loss)
                    finally:
                        self._in_touch_since = math.inf
                        # Ended at once, and the lock with it: the other end may not answer.
                        await connection.invalidate()
            except (*FAULTS, UnavailableError) as error:
                log.warning("leader.disconnected", why=type(error).__name__)
                await self._rest()

    async def _acquire(self, connection: AsyncConnection) -> bool:
        """Try for the lock until it is ours (True) or the campaign is over."""
        standing_by = False
        while not self._resigned.is_set():
            async with asyncio.timeout(self._options.ping_within.total_seconds()):
                if await connection.scalar(_TRY, {"key": LOCK_KEY}):
                    return True
                await self._cut_off_silent(connection)
            if not standing_by:
                standing_by = True
                log.info("leader.standing_by", message="Lock not acquired, standing by")
            await self._rest()
        return False

    async def _cut_off_silent(self, connection: AsyncConnection) -> None:
        seconds = self._options.silence_max.total_seconds()
        silent = await connection.scalar(_SILENT, {"key": LOCK_KEY, "seconds": seconds})
        if silent is not None:
            log.warning("leader.cut_off", pid=silent, silent_seconds=seconds)
            await connection.scalar(_END, {"pid": silent})
            self._tenure = replace(self._tenure, cut_offs=self._tenure.cut_offs + 1)

    async def _lead(
        self,
        connection: AsyncConnection,
        on_gain: Callable[[datetime | None], Awaitable[None]],
        on_loss: Callable[[], Awaitable[None]],
    ) -> None:
        await self._ping(connection)
        self._term, before = await self._unit_of_work.write(self._take)
        self._count_gain(before)
        try:
            await on_gain(None if before is None else before.beat)
            while not self._resigned.is_set():
                await self._rest()
                await self._ping(connection)
        finally:
            term, self._term = self._term, 0
            lost = self._tenure.terms_lost + 1
            self._tenure = replace(self._tenure, terms_lost=lost, leading_since=None)
            log.info("leader.lost", term=term, resigned=self._resigned.is_set())
            await on_loss()

    def _take(self, connection: WriteConnection) -> tuple[int, Leadership | None]:
        before = leadership_repository.read_leadership(connection)
        now = self._clock.now()
        term = leadership_repository.take_leadership(connection, holder=self._owner, now=now)
        return term, before

    def _count_gain(self, before: Leadership | None) -> None:
        holder = None if before is None else before.holder
        taken_over = holder not in {None, self._owner}
        self._tenure = replace(
            self._tenure,
            terms_won=self._tenure.terms_won + 1,
            takeovers=self._tenure.takeovers + taken_over,
            leading_since=self._clock.now(),
        )
        log.info("leader.gained", term=self._term, holder_before=holder)

    async def _ping(self, connection: AsyncConnection) -> None:
        """Prove that the lock is still ours; trust in it begins before the question.

        Then free what silent clients hold (rows, and hosts to claim for), before a term begins too:
        its row may be among it.
        """
        asked = self._clock.monotonic()
        async with asyncio.timeout(self._options.ping_within.total_seconds()):
            if not await connection.scalar(_PING, {"key": LOCK_KEY}):
                raise ConnectionResetError("the lock is no longer held")
            ended = (await connection.execute(_END_SILENT_WRITES)).rowcount
        if ended:
            log.warning("leader.silent_writes_ended", sessions=ended)
        trust = self._options.silence_max - self._options.trust_margin
        self._trusted_until = asked + trust.total_seconds()

    async def _rest(self) -> None:
        """Wait for the next try or ping, or for the resignation."""
        try:
            async with asyncio.timeout(self._options.every.total_seconds()):
                await self._resigned.wait()
        except TimeoutError:
            return
