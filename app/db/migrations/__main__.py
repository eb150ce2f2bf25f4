"""``python -m app.db.migrations check`` tells whether the migrations build what ``models`` says.

``revision MESSAGE`` writes a new migration from the differences. Both work on a throw-away SQLite
file, so that a developer's data is never touched.
"""

import sys
import tempfile
from pathlib import Path

from alembic import command

from app.db.migrate import alembic_config, differences, upgrade
from app.db.session import open_sqlite_writer


def main(arguments: list[str]) -> int:
    """Run one of the two commands; return the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        engine = open_sqlite_writer(Path(folder) / "check.db")
        try:
            with engine.begin() as connection:
                upgrade(connection)
                match arguments:
                    case ["check"]:
                        found = differences(connection)
                        sys.stdout.writelines(f"{difference}\n" for difference in found)
                        return 1 if found else 0
                    case ["revision", message]:
                        command.revision(
                            alembic_config(connection), message=message, autogenerate=True
                        )
                        return 0
                    case _:
                        sys.stderr.write("usage: migrations check | revision MESSAGE\n")
                        return 2
        finally:
            engine.dispose()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
