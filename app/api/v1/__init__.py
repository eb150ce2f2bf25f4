"""Version 1 of the API, served below ``/api/v1``."""
