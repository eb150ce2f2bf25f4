"""The Dockerfile: what it promises, and its build steps run as plain commands."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction: its word, and the rest of its line."""

    word: str
    rest: str


def read_stages() -> list[list[Step]]:
    """Return the stages in order, each beginning with its FROM."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    joined = "\n".join(lines).replace("\\\n", " ")
    stages: list[list[Step]] = []
    for line in filter(str.strip, joined.splitlines()):
        word, rest = line.split(maxsplit=1)
        if word == "FROM":
            stages.append([])
        stages[-1].append(Step(word, rest))
    return stages


def rests(stage: list[Step], word: str) -> list[str]:
    """Return what follows this word, wherever the stage says it."""
    return [step.rest for step in stage if step.word == word]


def read_environment(stage: list[Step]) -> dict[str, str]:
    """Return the variables that the stage sets."""
    pairs = [pair.split("=", 1) for rest in rests(stage, "ENV") for pair in shlex.split(rest)]
    return dict(pairs)


@pytest.fixture
def final() -> list[Step]:
    """Return the stage that becomes the image."""
    return read_stages()[-1]


def test_images_are_pinned() -> None:
    """Every image is taken by version, and built and run on the same one."""
    images = [rest.split()[0] for stage in read_stages() for rest in rests(stage, "FROM")]

    assert [image for image in images if not re.fullmatch(r"[\w/]+:\d[\w.]*(-\w+)?", image)] == []
    assert images[-1] == images[-2]


def test_the_image_builds_with_our_uv() -> None:
    """The uv of the image is the version that the checks and tests ran with."""
    (ours,) = re.findall(r"^uv==(\S+)", (ROOT / "scripts/uv.txt").read_text("utf-8"), re.MULTILINE)
    (theirs,) = [rest for stage in read_stages() for rest in rests(stage, "FROM") if "/uv:" in rest]

    assert theirs == f"astral/uv:{ours} AS uv"


def test_the_service_is_not_root(final: list[Step]) -> None:
    """The service runs as a numbered user without rights, who owns nothing but the data."""
    assert rests(final, "USER") == ["10001:10001"]
    assert not [rest for rest in rests(final, "COPY") if "--chown" in rest]


def test_signals_reach_the_service(final: list[Step]) -> None:
    """No shell stands between the signal to stop and the service."""
    (entrypoint,) = rests(final, "ENTRYPOINT")
    (command,) = rests(final, "CMD")

    assert (json.loads(entrypoint), json.loads(command)) == (["myscheduler"], ["serve"])
    assert rests(final, "STOPSIGNAL") == ["SIGTERM"]


def test_a_bare_run_answers_and_keeps_its_data(final: list[Step]) -> None:
    """Without a setting the container listens on 8003 and writes to the volume."""
    environment = read_environment(final)

    assert environment["DATABASE_URL"] == "sqlite:////app/data/jobs.db"
    assert (environment["HOST"], environment["PORT"]) == ("0.0.0.0", "8003")
    assert rests(final, "VOLUME") == ['["/app/data"]']
    assert rests(final, "EXPOSE") == ["8003"]
    assert rests(final, "WORKDIR") == ["/app"]


def test_nothing_is_written_to_the_root(final: list[Step]) -> None:
    """Bytecode is made while building; the running service writes none."""
    assert read_environment(final)["PYTHONDONTWRITEBYTECODE"] == "1"
    assert read_environment(read_stages()[-2])["UV_COMPILE_BYTECODE"] == "1"


class Answers(BaseHTTPRequestHandler):
    """Answers /health/live like the service, and everything else with 404."""

    def do_GET(self) -> None:
        """Answer."""
        self.send_response(200 if self.path == "/health/live" else 404)
        self.end_headers()


@pytest.fixture
def live_port() -> Iterator[int]:
    """Yield the port of a service that is alive."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server.server_address[1]
        server.shutdown()
        thread.join()


def check_health(final: list[Step], port: int) -> int:
    """Return the exit status of the image's health check, asked about this port."""
    (rest,) = rests(final, "HEALTHCHECK")
    python, *arguments = json.loads(rest.partition(" CMD ")[2])
    assert python == "python"
    finished = subprocess.run(
        [sys.executable, *arguments],
        check=False,
        capture_output=True,
        timeout=30,
        env={"PORT": str(port), "http_proxy": "http://127.0.0.1:9"},
    )
    return finished.returncode


def test_a_live_service_is_healthy(final: list[Step], live_port: int) -> None:
    """The health check asks the port that is set, past any proxy, and is content with 200."""
    assert check_health(final, live_port) == 0


def test_a_dead_service_is_unhealthy(final: list[Step], live_port: int) -> None:
    """The health check fails when nothing listens, and on any answer but success."""
    (rest,) = rests(final, "HEALTHCHECK")
    elsewhere = [Step("HEALTHCHECK", rest.replace("/health/live", "/health/lost"))]

    assert check_health(final, 9) != 0
    assert check_health(elsewhere, live_port) != 0


def is_in_context(path: Path) -> bool:
    """Judge by .dockerignore: the last pattern that fits decides."""
    kept = True
    for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines():
        pattern = line.removeprefix("!")
        if not line or line.startswith("#"):
            continue
        expression = re.escape(pattern).replace(r"\*\*/", "(.*/)?").replace(r"\*", "[^/]*")
        if any(re.fullmatch(expression, str(part)) for part in (path, *path.parents)):
            kept = line.startswith("!")
    return kept


def copy_into(workdir: Path, sources: list[str]) -> None:
    """Do what COPY does: files that .dockerignore leaves out are not there to be copied."""
    for source in sources:
        found = [ROOT / source, *(ROOT / source).rglob("*")]
        kept = [path for path in found if path.is_file() and is_in_context(path.relative_to(ROOT))]
        assert kept, f"{source} is not in the build context"
        for path in kept:
            target = workdir / path.relative_to(ROOT)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)


def find_uv() -> str:
    """Return the uv that runs these tests, or the one of the set-up."""
    candidates = [os.environ.get("UV"), shutil.which(ROOT / ".tools/bin/uv"), shutil.which("uv")]
    found = next(filter(None, candidates), None)
    if found is None:
        pytest.skip("uv is not on this machine: `make test` brings it")
    return found


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the build stage as plain commands; the returned directory stands for /app."""
    workdir = tmp_path_factory.mktemp("app")
    uv = Path(find_uv())
    stage = read_stages()[-2]
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in {"VIRTUAL_ENV", "UV_PROJECT_ENVIRONMENT", "PYTHONPATH"}
    }
    # The cache is a mount of the build and lasts there; here the machine's own one does.
    ours = {name: value for name, value in read_environment(stage).items() if "CACHE" not in name}
    environment = inherited | ours | {"UV_PYTHON": sys.executable}
    environment["PATH"] = f"{uv.absolute().parent}{os.pathsep}{environment['PATH']}"
    for step in stage:
        if step.word == "COPY" and "--from" not in step.rest:
            copy_into(workdir, step.rest.split()[:-1])
        elif step.word == "RUN":
            command = re.sub(r"--mount=\S+", "", step.rest)
            ran = subprocess.run(
                ["/bin/sh", "-c", command],
                check=False,
                cwd=workdir,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=100,
            )
            assert ran.returncode == 0, ran.stderr
    return workdir


@pytest.mark.slow
def test_the_built_image_says_its_version(built: Path, tmp_path: Path) -> None:
    """The Dockerfile's steps make an environment in which the command works by itself."""
    venv = built / ".venv"
    ran = subprocess.run(
        ["myscheduler", "version"],
        check=False,
        cwd=tmp_path,
        env={"PATH": f"{venv / 'bin'}{os.pathsep}{os.defpath}", "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    (declared,) = re.findall(r'__version__ = "(.+)"', (ROOT / "app/__init__.py").read_text("utf-8"))

    assert ran.returncode == 0, ran.stderr
    assert declared in ran.stdout


@pytest.mark.slow
def test_the_built_image_holds_the_package_and_its_bytecode(built: Path) -> None:
    """Only the environment is copied on: it holds the package itself, compiled, and no tools."""
    (site,) = (built / ".venv" / "lib").glob("python*/site-packages")

    assert (site / "app" / "__init__.py").is_file()
    assert list((site / "app" / "__pycache__").glob("__init__.*.pyc"))
    assert not [name for name in ("pytest", "mypy", "ruff") if (site / name).exists()]


@pytest.mark.slow
def test_the_built_image_holds_the_licence(built: Path) -> None:
    """The licence travels with the package, as it asks for."""
    (site,) = (built / ".venv" / "lib").glob("python*/site-packages")

    assert list(site.glob("myscheduler-*.dist-info/licenses/LICENSE"))


@pytest.mark.parametrize("name", ["app/__init__.py", "pyproject.toml", "uv.lock", "LICENSE"])
def test_the_context_holds_what_is_built(name: str) -> None:
    """What the build needs is in its context."""
    assert is_in_context(Path(name))


@pytest.mark.parametrize(
    "name", [".env", ".git/config", "data/jobs.db", ".venv/bin/python", "app/__pycache__/x.pyc"]
)
def test_the_context_holds_no_secrets(name: str) -> None:
    """Settings, history, data and local environments never reach an image."""
    assert not is_in_context(Path(name))
