"""Subscribers to committed facts: logs now, metrics and traces later."""
