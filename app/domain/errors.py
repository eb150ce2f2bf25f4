"""What can be refused, and why: one tree.

::

    SchedulerError
    ├── NotFoundError
    │   ├── JobNotFoundError
    │   ├── ExecutionNotFoundError
    │   └── ReasonNotFoundError
    ├── ConflictError
    │   ├── JobExistsError
    │   ├── JobBrokenError
    │   ├── ExecutionOverError
    │   ├── TooManyWaitingError
    │   ├── IdempotencyKeyReusedError
    │   └── LockTakenError
    ├── InvalidError
    │   ├── InvalidScheduleError
    │   ├── InvalidJobError
    │   └── TargetRefusedError
    └── UnavailableError
        ├── AddressUnavailableError
        ├── StorageUnavailableError
        ├── StorageUnansweredError
        ├── StorageDamagedError
        ├── StorageInUseError
        ├── LockLostError
        └── ShuttingDownError

Every leaf has a stable ``code``. ``str(error)`` is one sentence that a person can act on and that
never repeats the input, which may hold secrets. Only ``api/errors.py`` knows HTTP statuses.
"""

from typing import ClassVar


class SchedulerError(Exception):
    """Base of everything this program refuses on purpose."""

    code: ClassVar[str] = "error"


class NotFoundError(SchedulerError):
    """What was asked for does not exist."""

    code = "not_found"


class JobNotFoundError(NotFoundError):
    """No job has this id."""

    code = "job_not_found"

    def __init__(self, job_id: str) -> None:
        super().__init__(f"Job {job_id} not found")
        self.job_id = job_id


class ExecutionNotFoundError(NotFoundError):
    """No execution has this id."""

    code = "execution_not_found"

    def __init__(self, execution_id: str) -> None:
        super().__init__(f"Execution {execution_id} not found")


class ReasonNotFoundError(NotFoundError):
    """No reason and no error code has this name; ``meant`` is one that is spelled alike."""

    code = "reason_not_found"

    def __init__(self, meant: str | None) -> None:
        hint = "" if meant is None else f"did you mean {meant}? "
        super().__init__(
            f"There is no reason or error code of this name; {hint}GET /api/v1/reasons lists all"
        )


class ConflictError(SchedulerError):
    """The change contradicts what is stored."""

    code = "conflict"


class JobExistsError(ConflictError):
    """A job with this id exists and replacing it was not asked for."""

    code = "job_exists"

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"Job {job_id} already exists; "
            "send replace_existing=true to replace it, or choose another job_id"
        )


class JobBrokenError(ConflictError):
    """The job's stored definition cannot be read, so it cannot run."""

    code = "job_broken"

    def __init__(self, job_id: str) -> None:
        super().__init__(
            f"Job {job_id} is broken: its stored definition cannot be read; "
            "send the whole job again with replace_existing=true"
        )


class ExecutionOverError(ConflictError):
    """The execution has ended, otherwise than by being cancelled."""

    code = "execution_over"

    def __init__(self, execution_id: str, status: str) -> None:
        super().__init__(
            f"Execution {execution_id} ended as {status} already and cannot be cancelled"
        )


class TooManyWaitingError(ConflictError):
    """So many executions of the job wait that no further one is taken in."""

    code = "too_many_waiting"

    def __init__(self, job_id: str, limit: int) -> None:
        super().__init__(
            f"{limit} executions of job {job_id} wait to run already; nothing was stored: "
            "try again when some of them have run, or cancel some"
        )


class IdempotencyKeyReusedError(ConflictError):
    """An Idempotency-Key came back with another request."""

    code = "idempotency_key_reused"

    def __init__(self) -> None:
        super().__init__(
            "This Idempotency-Key was used for a different request in the last 24 hours; "
            "use a new key for a new request"
        )


class LockTakenError(ConflictError):
    """The lock of ``app.locks`` is somebody else's; ``holder`` describes whose, in words."""

    code = "lock_taken"

    def __init__(self, name: str, holder: str) -> None:
        super().__init__(
            f"The lock {name} is held elsewhere, by {holder}; "
            "wait until it is given back, or end that process"
        )
        self.name = name
        self.holder = holder


class InvalidError(SchedulerError):
    """Well-formed, but it cannot be done."""

    code = "invalid"


class InvalidScheduleError(InvalidError):
    """The schedule is missing, malformed or never fires."""

    code = "invalid_schedule"


class InvalidJobError(InvalidError):
    """Another part of the definition cannot work."""

    code = "invalid_job"


class TargetRefusedError(InvalidError):
    """The egress policy does not let this target be called."""

    code = "egress_denied"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"The target must not be called: {why}; "
            "choose another target, or let an operator change the MYSCHEDULER_EGRESS settings"
        )


class UnavailableError(SchedulerError):
    """Right now it cannot be done; the same request may succeed later.

    Nothing was stored, except maybe where it is ``StorageUnansweredError``.
    """

    code = "unavailable"


class AddressUnavailableError(UnavailableError):
    """The address to listen on cannot be taken."""

    code = "address_unavailable"

    def __init__(self, host: str, port: int, why: str) -> None:
        super().__init__(
            f"The service cannot listen on {host} port {port}: {why}; "
            "stop what listens there, or choose another address by HOST and PORT"
        )


class StorageUnavailableError(UnavailableError):
    """The database did not take the change, or cannot be read."""

    code = "storage_unavailable"


class StorageUnansweredError(UnavailableError):
    """The database was lost while it stored the change: it may be stored, or not."""

    code = "storage_unanswered"

    def __init__(self) -> None:
        super().__init__(
            "The connection to the database was lost before it confirmed the change, which may or "
            "may not be stored; with an Idempotency-Key send the same request again in a moment, "
            "without one look first at what is stored"
        )


class StorageDamagedError(UnavailableError):
    """The database file is damaged, for good: nothing of it is read or written any more."""

    code = "storage_damaged"

    def __init__(
        self,
        sentence: str = "The database file is damaged, so the service has stopped all work on it "
        "and nothing was stored; stop the service, run myscheduler check to see what is wrong, "
        "and put a backup in the file's place",
    ) -> None:
        super().__init__(sentence)


class StorageInUseError(UnavailableError):
    """Another process owns the data directory."""

    code = "storage_in_use"


class LockLostError(UnavailableError):
    """A lock of ``app.locks`` was lost while it was held, and may be another's by now."""

    code = "lock_lost"

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The lock {name} was lost while it was held, with the connection to the database; "
            "another process may hold it by now: see what was done, and take the lock again"
        )
        self.name = name


class ShuttingDownError(UnavailableError):
    """The service is stopping and takes no more changes."""

    code = "shutting_down"
