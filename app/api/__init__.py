"""The HTTP interface: FastAPI routes, error answers, middleware; over ``services`` only."""
