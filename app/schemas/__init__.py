"""The wire: Pydantic models of the public API, and the mapping between them and the domain."""
