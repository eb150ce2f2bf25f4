"""A process that holds a lock: ``python -m tests.support.lock_holder MODE NAME``.

It says what happens, a line each. In a thread it ends with its input or when it is told
``leave``, in a task when the lock is lost. The database comes from the environment.
"""

import asyncio
import sys

from app.locks import LockLostError, LockTakenError, single_instance


def hold(name: str) -> None:
    """Hold it in a thread that cannot be interrupted."""
    with single_instance(name) as held:
        say("held")
        for line in sys.stdin:
            if line == "leave\n":
                break
            held.check()
            say("checked")


async def hold_async(name: str) -> None:
    """Hold it in a task that can."""
    async with single_instance(name):
        say("held")
        await asyncio.Event().wait()


def say(line: str) -> None:
    """Tell whoever started this process."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(mode: str, name: str) -> None:
    """Hold, and tell how it ended."""
    try:
        if mode == "async":
            asyncio.run(hold_async(name))
        else:
            hold(name)
    except LockTakenError as error:
        say(f"taken: {error}")
    except LockLostError:
        say("lost")
    else:
        say("left")


if __name__ == "__main__":
    main(*sys.argv[1:])
