"""Use cases: domain objects in and out, one unit of work each."""
