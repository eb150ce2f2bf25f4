"""The running service against Schemathesis: every operation of its own OpenAPI document.

``make test`` runs a slice; the whole is ``make sweep``, or alone:
``pytest -m sweep tests/e2e/test_api_fuzz.py --timeout=1800 -s``.
"""

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.homes import Home
from tests.support.service import ROOT, Service

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
PHASES = ("examples", "coverage", "fuzzing", "stateful")
OPTIONS = (
    *("--phases", ",".join(PHASES)),
    *("--mode", "all", "--checks", ",".join(CHECKS), "--continue-on-failure", "--no-shrink"),
    *("--seed", "1", "--generation-database", "none", "--no-color", "--warnings", "off"),
)

# Whatever a job's target is, only a port of this machine where nobody listens may be called.
NOBODY = {"MYSCHEDULER_EGRESS": "allowlist", "MYSCHEDULER_EGRESS_ALLOW": "127.0.0.1:9"}


async def fuzz(service: Service, *, examples: int) -> dict[str, Any]:
    """Let Schemathesis loose with so many examples for each operation; return its report."""
    report = service.folder / "report.json"
    process = await asyncio.create_subprocess_exec(
        Path(sys.executable).with_name("st"), "run",
        f"http://127.0.0.1:{service.port}/openapi.json",
        *OPTIONS, "--max-examples", str(examples),
        "--report", "json", "--report-json-path", report,
        cwd=service.folder,
        env={
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "SCHEMATHESIS_HOOKS": "tests.support.fuzz_hooks",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()[-20_000:]
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found


async def check(home: Home, *, examples: int) -> dict[str, Any]:
    """Fuzz a service that calls nobody, and check that it takes no harm."""
    async with Service(home, **NOBODY) as service:
        report = await fuzz(service, examples=examples)
        assert (await service.client.get("/health/ready")).json()["status"] == "ready"
        assert await service.stop() == 0
    assert report["complete"]
    assert report["operations"]["tested"] == report["operations"]["total"]
    assert report["failures"] == []
    assert report["errors"] == []
    phases = {name: phase["status"] for name, phase in report["phases"].items()}
    assert phases == dict.fromkeys(PHASES, "success")
    # Not all of it bounced off: jobs were stored by the cases that cover the document.
    assert report["valid_rates"]["POST /api/v1/jobs"]["coverage"]["accepted"] > 200
    errors = [line for line in service.log_lines() if line["level"] in {"error", "critical"}]
    assert errors == []
    return report


@pytest.mark.slow
async def test_a_slice(home: Home):
    """Whatever fits the document, or just does not, is answered as documented, and never by 5xx."""
    report = await check(home, examples=5)
    assert report["test_cases"]["generated"] > 1_000


@pytest.mark.sweep
async def test_twenty_thousand_cases(home: Home):
    """The same holds over more than 20,000 requests."""
    report = await check(home, examples=1_500)
    print(json.dumps({name: report[name] for name in ("running_time", "test_cases")}))  # noqa: T201
    # Half of the jobs thought up are mended to fit, so a good part of those was stored, too. Of the
    # few in a slice any number may be.
    assert report["valid_rates"]["POST /api/v1/jobs"]["fuzzing"]["accepted"] > 1_500 / 4
    assert report["test_cases"]["generated"] >= 20_000
