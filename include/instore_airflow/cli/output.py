"""Tables for people and JSON for programs; foreign text is made harmless."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from include.instore.sources.quarantine import Outcome


def print_outcomes(outcomes: Sequence[Outcome], dry_run: bool, as_json: bool, **counts: int) -> None:
    tally = dict(sorted(Counter(outcome.outcome for outcome in outcomes).items()))
    if as_json:
        print_json({"dry_run": dry_run, "counts": tally, **counts, "records": [asdict(each) for each in outcomes]})
        return
    print_table(
        ("id", "reference", "would be" if dry_run else "outcome", "reason", "detail"),
        [(each.id[:36], each.reference, each.outcome, each.reason, each.detail) for each in outcomes],
    )
    parts = [f"{count} {name}" for name, count in {**tally, **counts}.items()]
    typer.echo(f"{'Dry run: ' if dry_run else ''}{', '.join(parts) or 'nothing to do'}")


def print_json(value: Any) -> None:
    json.dump(value, sys.stdout, default=moment, indent=2)
    sys.stdout.write("\n")


def print_table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    table = [heads, *[[printable(cell) for cell in row] for row in rows]]
    widths = [max(len(row[column]) for row in table) for column in range(len(heads))]
    for row in table:
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def printable(text: str, *, lines: bool = False) -> str:
    """Foreign text without the control characters that a terminal would obey."""
    return "".join(
        each if each.isprintable() or (lines and each == "\n") else each.encode("unicode_escape").decode()
        for each in text
    )


def moment(value: Any) -> str:
    return value.isoformat(timespec="seconds") if isinstance(value, datetime) else str(value or "")
