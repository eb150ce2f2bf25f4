"""The HTTP interface: FastAPI routes, error answers, middleware. Reaches data through ``services`` only."""
