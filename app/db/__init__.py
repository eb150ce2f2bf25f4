"""Engines, the two doors to the database, and migrations."""
