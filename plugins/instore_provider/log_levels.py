"""Other code's loggers, told for a while what they may say."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator


@contextlib.contextmanager
def at_level(level: int, *names: str) -> Iterator[None]:
    """These loggers say nothing below this level meanwhile, and are as they were afterwards."""
    before = {name: logging.getLogger(name).level for name in names}
    for name in names:
        logging.getLogger(name).setLevel(level)
    try:
        yield
    finally:
        for name, each in before.items():
            logging.getLogger(name).setLevel(each)
