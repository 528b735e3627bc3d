"""The stand-in from a shell: `python -m sandbox.servicebus --state .sandbox/servicebus.db --port 5672`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sandbox.servicebus import DEFAULT_CONFIG_PATH, StandInError, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m sandbox.servicebus", description=__doc__)
    parser.add_argument(
        "--config", type=Path, default=DEFAULT_CONFIG_PATH, help="a Config.json of Microsoft's emulator"
    )
    parser.add_argument("--state", type=Path, help="the state file; without one everything is forgotten at the end")
    parser.add_argument("--port", type=int, default=5672, help="0 for any free one")
    parser.add_argument("--host", default="127.0.0.1", help="a loopback address")
    arguments = parser.parse_args()
    try:
        run(arguments.config, arguments.state, arguments.port, arguments.host)
    except StandInError as problem:
        sys.stderr.write(f"{problem}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
