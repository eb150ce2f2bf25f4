"""What k8s/replicas-keda asks the database for: one statement, sent by KEDA every few seconds."""

from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parents[2] / "k8s" / "replicas-keda"


def read_trigger() -> dict[str, Any]:
    """Return the trigger that asks, as it stands in the ScaledObject."""
    text = (FOLDER / "queue-depth.yaml").read_text(encoding="utf-8")
    (scaled,) = [one for one in yaml.safe_load_all(text) if one["kind"] == "ScaledObject"]
    (trigger,) = [one for one in scaled["spec"]["triggers"] if one["type"] == "postgresql"]
    found: dict[str, Any] = trigger
    return found


def read_statement() -> str:
    """Return the statement."""
    found: str = read_trigger()["metadata"]["query"]
    return found
