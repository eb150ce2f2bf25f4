"""Hands committed facts to whoever wants to know; one subscriber's failure is not another's."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import structlog

from app.domain.events import Event
from app.engine.ports import Subscriber

log = structlog.get_logger(__name__)


class Publisher:
    """Calls every subscriber with every event, in order of subscription.

    What is published at once is told within one ``around``.
    """

    def __init__(
        self, *, around: Callable[[], AbstractContextManager[object]] = nullcontext
    ) -> None:
        self._around = around
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        """Add a subscriber; it hears of everything published from now on."""
        self._subscribers.append(subscriber)

    def publish(self, *events: Event) -> None:
        """Tell everybody; call this only after the commit that made ``events`` true."""
        with self._around():
            for event in events:
                self._tell(event)

    def _tell(self, event: Event) -> None:
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                log.exception("subscriber.failed", event_type=type(event).__name__)
