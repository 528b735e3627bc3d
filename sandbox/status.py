"""The counts of the running stand-ins, for people and for scripts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .remote import NotReachableError, call

_SERVICES = ("service_bus", "loyalty", "profile_store")


def collect(running: dict[str, Any]) -> dict[str, Any]:
    """Return the counts by service.

    running: what `up` said when it was ready. A service that does not answer is null.
    Raises NotReachableError when none answers.
    """
    counts: dict[str, Any] = {name: _ask(running[name]["url"]) for name in _SERVICES}
    if not any(counts.values()):
        raise NotReachableError("The sandbox of this state folder is not running.")
    return counts


def _ask(url: str) -> dict[str, Any] | None:
    try:
        answer: dict[str, Any] = call(url, "GET", "/sandbox/state")
    except NotReachableError:
        return None
    return answer


def show(counts: dict[str, Any]) -> None:
    """Print the counts as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table("service", "what", "count", title="Sandbox")
    table.columns[2].justify = "right"
    for service, answer in counts.items():
        if answer is None:
            table.add_row(service, "does not answer", "")
            continue
        for what, count in _flat(answer):
            table.add_row(service, what, f"{count:,}" if isinstance(count, int) else str(count))
        table.add_section()
    Console().print(table)


def _flat(counts: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield the counts one by one; those of nested objects under their names joined, and only where there are any."""
    for name, count in counts.items():
        if isinstance(count, dict):
            for inner, value in _flat(count):
                if value:
                    yield f"{name} → {inner}", value
        else:
            yield name.replace("_", " "), count
