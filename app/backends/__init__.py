"""What differs between one process on SQLite and many replicas on PostgreSQL."""
