"""The rows: SQLAlchemy tables."""
