"""The composition root: the only package that builds objects and wires them to each other.

``pipeline.py`` opens everything behind the API in order and closes it in the reverse order;
``serving.py`` puts the API in front of it and runs both under uvicorn; ``tools.py`` and
``moving.py`` run the commands that do not serve. ``app`` is there for ``uvicorn app.main:app``.
"""

import os
import sys
from pathlib import Path

from fastapi import FastAPI

from app.core.config import ConfigError, load_settings
from app.core.logging import configure_logging
from app.main.moving import move
from app.main.pipeline import open_service
from app.main.serving import create_app, serve
from app.main.stations import Ground, build_stations
from app.main.tools import backup, check, explain, migrate, report_transitions, verify

__all__ = [
    "Ground",
    "backup",
    "build_stations",
    "check",
    "create_app",
    "explain",
    "migrate",
    "move",
    "open_service",
    "report_transitions",
    "serve",
    "verify",
]


def __getattr__(name: str) -> FastAPI:
    """Build ``app`` when a server asks for it, so that importing this module reads nothing."""
    if name != "app":
        raise AttributeError(name)
    try:
        settings = load_settings(os.environ, env_file=Path(".env"))
    except ConfigError as error:
        sys.stderr.write(f"{error}\n")
        sys.exit(2)
    configure_logging(settings.log_level, settings.log_format, stream=sys.stdout)
    return create_app(settings)
