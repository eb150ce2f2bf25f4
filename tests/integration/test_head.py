"""HEAD is GET without the body."""

from tests.support.homes import Home
from tests.support.service import open_api, settings_for


async def test_head_answers_like_get_without_the_body(home: Home):
    """HEAD has the status and headers of GET, and no body."""
    async with open_api(settings_for(home)) as api:
        for path in ("/health", "/api/v1/jobs/", "/api/v1/jobs/nobody"):
            got, head = await api.get(path), await api.head(path)
            assert head.status_code == got.status_code
            assert head.headers["content-type"] == got.headers["content-type"]
            assert head.headers["content-length"] == got.headers["content-length"]
            assert head.content == b""
