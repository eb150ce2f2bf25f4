"""Benchmarks of the real service over HTTP, against a target that keeps up and logs arrivals."""
