"""Hands committed facts to whoever wants to know; one subscriber's failure is not another's."""

import structlog

from app.domain.events import Event
from app.engine.ports import Subscriber

log = structlog.get_logger(__name__)


class Publisher:
    """Calls every subscriber with every event, in order of subscription."""

    def __init__(self) -> None:
        self._subscribers: list[Subscriber] = []

    def subscribe(self, subscriber: Subscriber) -> None:
        """Add a subscriber; it hears of everything published from now on."""
        self._subscribers.append(subscriber)

    def publish(self, event: Event) -> None:
        """Tell everybody; call this only after the commit that made ``event`` true."""
        for subscriber in self._subscribers:
            try:
                subscriber(event)
            except Exception:
                log.exception("subscriber.failed", event_type=type(event).__name__)
