import re

import pytest

from app.core.database_url import check_database_url


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:///./data/jobs.db",
        "sqlite:////var/lib/jobs.db",
        "sqlite+aiosqlite:///jobs.db",
        "sqlite:///C:/jobs.db",
        "sqlite:///データ/jobs.db",
        "postgresql://db/jobs",
        "postgres://me@db:5432/jobs",
        "postgresql+asyncpg://me:p/w#?%40@db:5432/jobs?ssl=require",
        "postgresql://me:pw@[::1]:5432/jobs",
        "postgresql:///jobs?host=/run/postgresql",
    ],
)
def test_usable_addresses(url):
    """Files and PostgreSQL servers, in each accepted spelling, pass unchanged."""
    assert check_database_url(url) == url


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("sqlite://", "nothing would survive a restart"),
        ("sqlite:///", "nothing would survive a restart"),
        ("sqlite:///:memory:", "nothing would survive a restart"),
        ("sqlite+aiosqlite:///:memory:", "nothing would survive a restart"),
        ("sqlite:///file:x?mode=memory&uri=true", "nothing would survive a restart"),
        ("sqlite://jobs.db", "three are needed"),
        ("sqlite:///data/", "names a directory"),
        ("sqlite:///jobs.db?mode=ro", "without options"),
        ("sqlite:///file:jobs.db", "without file:"),
        ("mysql://u:hunter2@h/d", "begins with mysql://, which is not supported"),
        ("hunter2", "is not a database address"),
        ("sqlite:///a\nb", "is not a database address"),
        ("postgresql://u:hunter2@x@h/d", "must be percent-encoded"),
        ("postgresql://u:hunter2@h:x/d", "must be percent-encoded"),
        ("postgresql://h:70000/d", "must be percent-encoded"),
        ("postgresql://h:5432:1/d", "must be percent-encoded"),
        ("postgresql://u:hunter2@h/d?sslmode=require", "?ssl=require"),
    ],
)
def test_unusable_addresses(url, why):
    """Each refusal says why and never repeats the password."""
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        check_database_url(url)
    assert "hunter2" not in str(caught.value)
