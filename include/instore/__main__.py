"""``python -m include.instore``: the operator's commands.

Their connections are Airflow's, about which this package knows nothing: the commands are in
include/instore_airflow/cli, and this is the one line that leads there.
"""

from __future__ import annotations


def main() -> None:
    """Run the command line."""
    from include.instore_airflow.cli import app

    app(prog_name="python -m include.instore")


if __name__ == "__main__":
    main()
