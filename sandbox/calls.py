"""What a stand-in remembers about its callers: counts by operation and status, never a path with a card in it."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence

from starlette.routing import compile_path

OTHER = "(unknown path)"
_REMEMBERED = 10_000


class CallCounts:
    """Names calls by the template of their path, and counts them since the stand-in started.

    templates: the paths that are served, such as "/customers/{id}". The first that fits names the call.
    """

    def __init__(self, templates: Sequence[str]) -> None:
        self._templates = [(compile_path(template)[0], template.replace(":path}", "}")) for template in templates]
        self._counts: Counter[tuple[str, str]] = Counter()
        self._arrivals: deque[float] = deque(maxlen=_REMEMBERED)

    def operation(self, method: str, path: str) -> str:
        """Return the name of a call, such as "GET /customers/by-loyalty-card/{card}"."""
        for pattern, template in self._templates:
            if pattern.match(path):
                return f"{method} {template}"
        return f"{method} {OTHER}"

    def arrive(self) -> None:
        """Note when a call came."""
        self._arrivals.append(time.monotonic())

    def arrivals(self) -> list[float]:
        """Return when the last 10,000 calls came, in seconds of the monotonic clock: for checks of a caller's rate."""
        return list(self._arrivals)

    def add(self, operation: str, outcome: int | str) -> None:
        """Count one call. The outcome is the status that was sent, or the word of the accident."""
        self._counts[operation, str(outcome)] += 1

    def as_json(self) -> dict[str, dict[str, int]]:
        """Return the counts as {operation: {outcome: calls}}."""
        counts: dict[str, dict[str, int]] = {}
        for (operation, outcome), calls in sorted(self._counts.items()):
            counts.setdefault(operation, {})[outcome] = calls
        return counts
