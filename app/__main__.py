"""``python -m app`` and the program ``myscheduler``: the command line of ``app.cli``."""

from app.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
