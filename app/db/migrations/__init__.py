"""Alembic's environment, kept inside the package so that the program migrates itself."""
