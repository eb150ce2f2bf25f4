"""Egress policy: which addresses this service may call."""
