"""MyScheduler: a self-hosted scheduler for HTTP webhooks."""

__version__ = "0.1.0"
