"""All SQL: synchronous functions that take a connection first and never commit."""
