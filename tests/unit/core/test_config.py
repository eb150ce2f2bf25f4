import json
from dataclasses import asdict
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from app.core.config import (
    SETTING_NAMES,
    ConfigError,
    LogFormat,
    LogLevel,
    Settings,
    describe_settings,
    load_settings,
    survey_settings,
)
from app.core.sources import Origin
from app.runners.http_options import TransportKind
from app.security.egress import EgressMode


def _load(**environ):
    return load_settings(environ, env_file=None)


def _problems_of(env_file=None, flags=None, **environ):
    with pytest.raises(ConfigError) as caught:
        load_settings(environ, env_file=env_file, flags=flags)
    return list(caught.value.problems)


def _rows_of(settings):
    return {row.name: row for row in describe_settings(settings)}


def test_nothing_given():
    """Without any source every setting has its documented default, and there is no warning."""
    settings = _load()
    assert settings == Settings()
    assert (settings.database_url, settings.timezone) == ("sqlite:///./data/jobs.db", "Asia/Tokyo")
    assert (settings.host, settings.port, settings.log_level) == ("127.0.0.1", 8003, LogLevel.INFO)
    assert (settings.concurrency, settings.host_concurrency) == (200, 10)
    assert settings.warnings == ()


def test_every_kind_of_text_is_parsed():
    """Numbers, switches, choices in any case and comma lists become typed values."""
    settings = _load(
        PORT="0",
        LOG_LEVEL="debug",
        MYSCHEDULER_LOG_FORMAT="JSON",
        MYSCHEDULER_HTTP_TRANSPORT="httpx",
        MYSCHEDULER_HTTP_TRUST_ENV="yes",
        MYSCHEDULER_SHUTDOWN_GRACE_SECONDS="2.5",
        MYSCHEDULER_EGRESS="Public",
        MYSCHEDULER_EGRESS_ALLOW=" 10.0.0.0/8, *.example.com ,,db.internal:5432",
        MYSCHEDULER_ROOT_PATH="/scheduler/",
    )
    assert settings.port == 0
    assert settings.log_level is LogLevel.DEBUG
    assert settings.log_format is LogFormat.JSON
    assert settings.http_transport is TransportKind.HTTPX
    assert settings.http_trust_env is True
    assert settings.shutdown_grace_seconds == 2.5
    assert settings.egress is EgressMode.PUBLIC
    assert settings.egress_allow == ("10.0.0.0/8", "*.example.com", "db.internal:5432")
    assert settings.root_path == "/scheduler"


@pytest.mark.parametrize(
    ("text", "schemes"),
    [("https", ("https",)), (" HTTPS ,http", ("http", "https")), ("", ("http", "https"))],
)
def test_schemes(text, schemes):
    """Schemes are read in any case and order, each once; nothing stands for both."""
    assert _load(MYSCHEDULER_EGRESS_SCHEMES=text).egress_schemes == schemes


@pytest.mark.parametrize("text", ["ftp", "https,ws", ",", "https://"])
def test_schemes_out_of_bounds(text):
    """What is neither http nor https is refused with what there is."""
    (problem,) = _problems_of(MYSCHEDULER_EGRESS_SCHEMES=text)
    assert problem == (
        f"MYSCHEDULER_EGRESS_SCHEMES is {text!r}, which is not http, https or both, "
        "separated by a comma"
    )


def test_settings_made_of_values():
    """Values of the right types, as tests and flags give them, pass like texts."""
    settings = Settings(log_level=LogLevel.DEBUG, egress_allow=("10.0.0.0/8",), port=0)
    assert (settings.log_level, settings.port) == (LogLevel.DEBUG, 0)
    assert settings.egress_allow == ("10.0.0.0/8",)


def test_all_problems_come_at_once():
    """Each unusable text is one sentence: name, what it is, what is allowed, what was meant."""
    assert _problems_of(
        PORT="80a",
        LOG_LEVEL="warn",
        HOST="http://0.0.0.0",
        TIMEZONE="Asia/Tokio",
        MYSCHEDULER_HTTP_TRUST_ENV="maybe",
        MYSCHEDULER_CONCURRENCY="0",
        MYSCHEDULER_ROOT_PATH="scheduler",
        MYSCHEDULER_EGRESS_DENY="10.0.0.0/8, a b",
        MYSCHEDULER_HTTP_TRANSPROT="httpx",
    ) == [
        "MYSCHEDULER_HTTP_TRANSPROT is not a setting; did you mean MYSCHEDULER_HTTP_TRANSPORT?",
        "TIMEZONE is 'Asia/Tokio', which is not an IANA time zone; did you mean Asia/Tokyo?",
        (
            "LOG_LEVEL is 'warn'; it must be DEBUG, INFO, WARNING, ERROR or CRITICAL; "
            "did you mean WARNING?"
        ),
        (
            "HOST is 'http://0.0.0.0', which is not a host to listen on; give an address such as "
            "127.0.0.1, 0.0.0.0 or ::, without http://, brackets or a port"
        ),
        "PORT is '80a'; it must be a whole number from 0 to 65535",
        "MYSCHEDULER_CONCURRENCY is '0'; it must be a whole number of attempts from 1 to 10000",
        "MYSCHEDULER_HTTP_TRUST_ENV is 'maybe'; it must be true or false",
        (
            "MYSCHEDULER_EGRESS_DENY is '10.0.0.0/8, a b', which holds 'a b'; "
            "an entry is a network (10.0.0.0/8), an address, a host name, *.suffix or *, "
            "each with or without :port"
        ),
        (
            "MYSCHEDULER_ROOT_PATH is 'scheduler', which is not a path prefix; "
            "it must look like /scheduler, or be empty"
        ),
    ]


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "1e400", "-1", "3601", "ten", "1 2"])
def test_seconds_out_of_bounds(text):
    """Seconds that are no number, not finite or out of bounds are refused with the bounds."""
    (problem,) = _problems_of(MYSCHEDULER_SHUTDOWN_GRACE_SECONDS=text)
    assert problem == (
        f"MYSCHEDULER_SHUTDOWN_GRACE_SECONDS is '{text}'; "
        "it must be a number of seconds from 0 to 3600"
    )


@pytest.mark.parametrize("text", ["-1", "65536", "80.5", "9" * 5000])
def test_port_out_of_bounds(text):
    """A port that is no port is refused, and a long text is cut in the sentence."""
    (problem,) = _problems_of(PORT=text)
    assert problem.endswith("it must be a whole number from 0 to 65535")
    assert len(problem) < 150


def test_valid_settings_that_contradict_each_other():
    """More excerpt than is read is refused, naming both settings."""
    (problem,) = _problems_of(MYSCHEDULER_RESPONSE_BYTES_MAX="2048")
    assert problem.startswith("MYSCHEDULER_RESPONSE_EXCERPT_BYTES (65536) must not exceed")


@hypothesis.settings(max_examples=30)
@given(st.text(min_size=6).filter(lambda text: "://" not in text))
def test_a_secret_is_never_repeated(secret):
    """No sentence about DATABASE_URL, and nothing shown of it, holds what was given as password."""
    secret = f"s3{secret}cret"
    for url in (f"mysql://u:{secret}@h/d", f"postgresql://u:{secret}@h:port/d", secret):
        survey = survey_settings({"DATABASE_URL": url}, env_file=None)
        assert survey.settings is None
        assert secret not in repr(survey)


def test_a_password_in_force_is_masked():
    """The description of settings and their repr show *** for the password of DATABASE_URL."""
    settings = _load(DATABASE_URL="postgresql://me:hunter2@db:5432/jobs?password=hunter2")
    shown = _rows_of(settings)["DATABASE_URL"].value
    assert shown == "postgresql://me:***@db:5432/jobs?password=***"
    assert "hunter2" not in repr(settings) + str(settings)


def test_text_of_a_file_is_never_repeated(tmp_path):
    """A refused text that came from a file is not quoted: it may be another secret."""
    secret = tmp_path / "port"
    secret.write_text("hunter2\n")
    assert _problems_of(PORT_FILE=str(secret)) == [
        f"PORT (read from {secret}) cannot be used; it must be a whole number from 0 to 65535"
    ]


def test_later_sources_win(tmp_path):
    """Flags beat the environment, which beats .env, and each row tells its origin and place."""
    env_file = tmp_path / ".env"
    env_file.write_text("HOST=0.0.0.0\nPORT=1\nLOG_LEVEL=ERROR\n")
    secret = tmp_path / "secret"
    secret.write_text("sqlite:////var/lib/jobs.db\n")
    settings = load_settings(
        {"PORT": "2", "LOG_LEVEL": "DEBUG", "DATABASE_URL_FILE": str(secret)},
        env_file=env_file,
        flags={"PORT": "3"},
    )
    assert (settings.host, settings.log_level, settings.port) == ("0.0.0.0", LogLevel.DEBUG, 3)
    assert settings.database_url == "sqlite:////var/lib/jobs.db"
    rows = _rows_of(settings)
    origins = {name: (rows[name].origin, rows[name].place) for name in list(rows)[:5]}
    assert origins == {
        "DATABASE_URL": (Origin.FILE, str(secret)),
        "TIMEZONE": (Origin.DEFAULT, ""),
        "LOG_LEVEL": (Origin.ENVIRONMENT, ""),
        "HOST": (Origin.ENV_FILE, str(env_file)),
        "PORT": (Origin.FLAG, "--port"),
    }


def test_timezone_wins_over_tz():
    """TZ is read, TIMEZONE wins, and a difference is a warning."""
    assert _load(TZ="UTC").timezone == "UTC"
    assert _load(TZ=":Europe/Berlin").timezone == "Europe/Berlin"
    assert _load(TZ="UTC", TIMEZONE="UTC").warnings == ()
    both = _load(TZ="UTC", TIMEZONE="Europe/Berlin")
    assert both.timezone == "Europe/Berlin"
    assert both.warnings == ("TIMEZONE and TZ differ; TIMEZONE is used",)


@pytest.mark.parametrize("name", ["localtime", "Factory", "JST-9", "posix/UTC", "/etc/localtime"])
def test_zones_of_the_host(name):
    """A zone that only this machine knows, or that means none, is refused."""
    assert "is not an IANA time zone" in _problems_of(TZ=name)[0]


def test_a_zone_like_no_other():
    """Where no zone's name is near, an example is given."""
    assert _problems_of(TZ="#")[0].endswith("use a name such as Asia/Tokyo or UTC")


def test_near_misses_are_warnings():
    """An unprefixed name one slip away from a setting is warned of, unless that one is given."""
    settings = _load(DATABSE_URL="x", TIMEZON="x", LOG_LEVL="x", HOSTS="x", DATABASE_HOST="x")
    assert settings.warnings == (
        "DATABSE_URL is not read; did you mean DATABASE_URL?",
        "LOG_LEVL is not read; did you mean LOG_LEVEL?",
        "TIMEZON is not read; did you mean TIMEZONE?",
    )
    assert _load(LOG_LEVL="x", LOG_LEVEL="INFO").warnings == ()


def test_an_allow_list_without_entries():
    """Allowing only what is listed while listing nothing is allowed, with a warning."""
    (warning,) = _load(MYSCHEDULER_EGRESS="allowlist").warnings
    assert warning.endswith("every webhook will be refused")


def test_warnings_accompany_problems():
    """Warnings are not lost when there are problems as well."""
    with pytest.raises(ConfigError) as caught:
        _load(PORT="x", LOG_LEVL="x")
    assert caught.value.warnings == ("LOG_LEVL is not read; did you mean LOG_LEVEL?",)
    assert str(caught.value) == "PORT is 'x'; it must be a whole number from 0 to 65535"


def test_a_survey_of_a_broken_configuration():
    """A survey shows the usable values beside the defaults of the refused ones."""
    survey = survey_settings({"PORT": "x", "HOST": "0.0.0.0"}, env_file=None)
    values = {row.name: (row.value, row.origin) for row in survey.rows}
    assert survey.settings is None
    assert values["PORT"] == (8003, Origin.DEFAULT)
    assert values["HOST"] == ("0.0.0.0", Origin.ENVIRONMENT)


def test_every_setting_is_described():
    """Each setting has a row with a name, meaning and allowed values, all of it JSON."""
    rows = describe_settings(Settings())
    assert {name for row in rows for name in (row.name, *row.other_names)} == set(SETTING_NAMES)
    assert all(row.description.endswith(".") and row.allowed for row in rows)
    assert all(row.value == row.default for row in rows)
    assert json.loads(json.dumps([asdict(row) for row in rows]))[4]["value"] == 8003


def test_every_default_passes_its_own_check():
    """Giving each default as a text yields the same settings."""
    rows = describe_settings(Settings())
    texts = {
        row.name: ",".join(row.default) if isinstance(row.default, list) else str(row.default)
        for row in rows
    }
    assert _load(**texts).model_dump() == Settings().model_dump()


def test_settings_read_nothing_by_themselves(monkeypatch):
    """The constructor takes values alone, is frozen and refuses unknown names."""
    monkeypatch.setenv("PORT", "1")
    settings = Settings()
    assert settings.port == 8003
    with pytest.raises(ValidationError):
        setattr(settings, "port", 1)  # noqa: B010 - the type checker refuses the plain form
    with pytest.raises(ValidationError):
        Settings.model_validate({"prot": 1})


def test_a_missing_env_file():
    """An .env file that does not exist counts as empty."""
    assert load_settings({}, env_file=Path("/nonexistent/.env")) == Settings()
