"""Redirects are followed only where a job asks, and never carry secrets to another origin."""

import pytest

from app.domain.execution import AttemptOutcome, Reason
from app.security.egress import EgressOptions
from tests.support.raw_server import RawServer, reply, server_tls

SECRETS = (
    ("Authorization", "Bearer t0p"),
    ("Cookie", "sid=t0p"),
    ("X-Api-Key", "t0p"),
    ("X-Plain", "fine"),
)


def redirect(location, status="302 Found"):
    """Answer with a Location."""
    return reply("moved", status=status, headers=(f"Location: {location}",))


async def test_not_followed_by_default(courier):
    """3xx is a failure that shows where it points, without query or credentials."""
    location = "http://u:hidden@other.test:8080/new/place?token=hidden#hidden"
    async with RawServer((redirect(location),)) as server:
        outcome = await courier.deliver(server.url())
        assert len(server.requests) == 1
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.RESPONSE, Reason.STATUS)
    assert outcome.http_status == 302
    assert "http://other.test:8080/new/place;" in outcome.error
    assert "hidden" not in outcome.error


async def test_relative_location_is_shown_whole(courier):
    """A relative Location is shown as the address it means."""
    async with RawServer((redirect("../login?next=/"),)) as server:
        outcome = await courier.deliver(server.url("/a/b"))
        assert f"points to http://127.0.0.1:{server.port}/login;" in outcome.error


async def test_location_with_controls(courier):
    """A hostile Location cannot break the sentence."""
    async with RawServer((redirect("/a\x1b[31mred" + "é" * 500),)) as server:
        outcome = await courier.deliver(server.url())
    assert outcome.reason in {Reason.STATUS, Reason.PROTOCOL}
    assert outcome.error.isprintable()
    assert len(outcome.error) < 500


@pytest.mark.parametrize(
    ("status", "method", "followed_as", "keeps_body"),
    [
        (301, "POST", "GET", False),
        (302, "POST", "GET", False),
        (303, "POST", "GET", False),
        (303, "PUT", "GET", False),
        (303, "HEAD", "HEAD", False),
        (301, "PUT", "PUT", True),
        (307, "POST", "POST", True),
        (308, "PATCH", "PATCH", True),
        (302, "GET", "GET", False),
    ],
)
async def test_methods(courier, status, method, followed_as, keeps_body):
    """301, 302 and 303 turn POST into GET; 307 and 308 keep method and body."""
    async with RawServer((redirect("/next?x=%41", f"{status} Moved"), reply())) as server:
        outcome = await courier.deliver(
            server.url(), method=method, body_json='{"a":1}', follow_redirects=True
        )
        _, second = server.requests
    assert outcome.succeeded
    assert outcome.http_status == 200
    assert second.line == f"{followed_as} /next?x=%41 HTTP/1.1".encode()
    assert second.body == (b'{"a":1}' if keeps_body else b"")
    assert ("content-type" in second.headers) is keeps_body


async def test_within_an_origin(courier):
    """Within one origin all headers travel along, with the same ids."""
    async with RawServer((redirect("/next"), reply())) as server:
        await courier.deliver(server.url(), headers=SECRETS, follow_redirects=True)
        first, second = server.requests
    assert [field for field in second.fields if field in SECRETS] == list(SECRETS)
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    assert first.headers["host"] == second.headers["host"]


async def test_across_origins(courier):
    """To another origin neither credentials nor the body go."""
    async with RawServer((reply(),)) as other:
        location = other.url("/", host="localhost")
        async with RawServer((redirect(location, "307 Moved"),)) as server:
            outcome = await courier.deliver(
                server.url(),
                method="POST",
                body_json='{"t0p":1}',
                headers=SECRETS,
                follow_redirects=True,
            )
        (request,) = other.requests
        assert request.headers["host"] == f"localhost:{other.port}"
    assert outcome.succeeded
    assert b"t0p" not in request.raw
    assert request.line.startswith(b"POST ")
    assert request.headers["content-length"] == "0"
    assert request.headers["x-plain"] == "fine"
    assert request.headers["idempotency-key"]


async def test_five_hops(courier):
    """Five hops are followed, the sixth is one too many."""
    async with RawServer((*[redirect("/on")] * 5, reply("end"), redirect("/on"))) as server:
        fine = await courier.deliver(server.url(), follow_redirects=True)
        assert fine.response_excerpt == "end"
        endless = await courier.deliver(server.url(), follow_redirects=True)
        assert len(server.requests) == 6 + 6
    assert (endless.reason, endless.http_status) == (Reason.STATUS, 302)
    assert "one redirect too many" in endless.error


async def test_each_hop_is_judged(courier):
    """A hop the policy refuses is blocked."""
    async with RawServer((redirect("http://169.254.169.254/latest/meta-data"),)) as server:
        outcome = await courier.deliver(server.url(), follow_redirects=True)
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.BLOCKED, Reason.EGRESS_DENIED)
    assert "169.254.169.254" in outcome.error
    assert outcome.http_status is None


async def test_hop_to_a_denied_port(courier):
    """A hop back to this machine is judged like a first call."""
    async with RawServer((reply(),)) as other:
        courier.egress = EgressOptions(deny=(f"127.0.0.1:{other.port}",))
        async with RawServer((redirect(other.url()),)) as server:
            outcome = await courier.deliver(server.url(), follow_redirects=True)
        assert not other.requests
    assert outcome.reason is Reason.EGRESS_DENIED


async def test_hop_to_another_scheme(courier):
    """Where https alone is allowed, a hop to http is refused and nothing is sent there."""
    courier.egress = EgressOptions(schemes=("https",))
    async with RawServer((reply(),)) as other:
        answers = (redirect(other.url("/?token=hidden")),)
        async with RawServer(answers, tls=server_tls()) as server:
            outcome = await courier.deliver(server.url(host="localhost"), follow_redirects=True)
            assert len(server.requests) == 1
        assert not other.requests
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.BLOCKED, Reason.EGRESS_DENIED)
    assert outcome.error == (
        "The egress policy does not allow calling 127.0.0.1: MYSCHEDULER_EGRESS_SCHEMES allows "
        "https, not http; ask the operator to allow it, or change the URL"
    )


async def test_hop_within_the_schemes(courier):
    """Where https alone is allowed, a hop from https to https is followed."""
    courier.egress = EgressOptions(schemes=("https",))
    async with RawServer((redirect("/next"), reply()), tls=server_tls()) as server:
        outcome = await courier.deliver(server.url(host="localhost"), follow_redirects=True)
    assert outcome.succeeded, outcome.error


@pytest.mark.parametrize(
    "location", ["file:///etc/passwd", "gopher://x/", "http://:80/", "http://[::1/"]
)
async def test_hop_to_what_cannot_be_called(courier, location):
    """A Location that is no http URL fails the run with the redirect's status."""
    async with RawServer((redirect(location),)) as server:
        outcome = await courier.deliver(server.url(), follow_redirects=True)
    assert (outcome.kind, outcome.reason) == (AttemptOutcome.RESPONSE, Reason.STATUS)
    assert outcome.http_status == 302
    assert "cannot be called" in outcome.error


async def test_redirect_without_location(courier):
    """A redirect without Location is a plain failure."""
    async with RawServer((reply(status="302 Found"),)) as server:
        outcome = await courier.deliver(server.url(), follow_redirects=True)
    assert outcome.error == "The target answered 302 Found"
