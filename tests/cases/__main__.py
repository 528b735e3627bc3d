"""``make cases``; `python -m tests.cases --help`."""

import sys

# Each task's process imports this module again, which must cost nothing.
if __name__ == "__main__":
    import tests.conftest  # noqa: F401  an Airflow home of its own, and no proxy on loopback
    from tests.cases.table import main

    sys.exit(main())
