"""Lets a child process end when its parent does, however that died."""

from __future__ import annotations

import os
import threading
import time

_POLL_SECONDS = 0.25


def die_with(parent_pid: int) -> None:
    """End this process as soon as its parent is no longer the given process.

    Polled, because it works the same on Linux and macOS; a killed parent can tell nobody.
    """

    def watch() -> None:
        while os.getppid() == parent_pid:
            time.sleep(_POLL_SECONDS)
        # Not sys.exit: this is not the main thread, and nothing here has to be saved.
        os._exit(0)

    threading.Thread(target=watch, name="die-with-parent", daemon=True).start()
