"""What the machine carries without any scheduler: ``wrk`` against the same target."""

import asyncio
import re
import tempfile
from pathlib import Path

from benchmarks.installed import Installed
from benchmarks.target import Target

_SECONDS = 3
_CONNECTIONS = 200
_SCRIPT = """wrk.method = "POST"
wrk.body = '{"job": "job-1"}'
wrk.headers["Content-Type"] = "application/json"
"""
_RATE = re.compile(r"Requests/sec:\s+([\d.]+)")


async def measure_ceiling(installed: Installed) -> float:
    """Post the same body for some seconds over kept connections; return requests per second."""
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name:
        folder = Path(name)
        script = folder / "post.lua"
        script.write_text(_SCRIPT, encoding="utf-8")
        async with Target(folder) as target:
            process = await asyncio.create_subprocess_exec(
                installed.program("wrk"), "--threads", "1", "--connections", str(_CONNECTIONS),
                "--duration", f"{_SECONDS}s", "--script", str(script), target.url("wrk"),
                env=installed.environment(), stdout=asyncio.subprocess.PIPE,
            )  # fmt: skip
            output, _ = await process.communicate()
    return read_rate(output.decode())


def read_rate(output: str) -> float:
    """Find requests per second in what wrk says. Raises ``ValueError`` if it does not say so."""
    found = _RATE.search(output)
    if found is None:
        raise ValueError(f"wrk said: {output}")
    return float(found[1])
