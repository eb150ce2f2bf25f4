"""Code that makes attempts, one module per kind of target. Runners do not know each other."""
