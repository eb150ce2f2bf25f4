"""How a process and the lead among replicas have come together."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class Tenure:
    """What a process knows of its times as leader since its start: what metrics are made of.

    ``takeovers``: terms won after another process's; ``cut_offs``: silent holders whose connection
    this one ended. ``leading_since`` is None while it does not lead.
    """

    terms_won: int = 0
    terms_lost: int = 0
    takeovers: int = 0
    cut_offs: int = 0
    leading_since: datetime | None = None
