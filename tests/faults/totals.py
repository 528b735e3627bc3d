"""What a session of the suite came to; `make faults` adds up those of its workers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FAMILIES = (
    "1 kills", "2 processes", "3 network", "4 answers", "5 bus", "6 disk", "7 clock", "8 data", "9 twice at once",
    "10 secrets and doors", "11 reading side",
)  # fmt: skip


@dataclass
class Totals:
    """Pipeline runs, processes killed, orders judged, what the judge found wrong, and faults by family.

    ``runs_killed_at_random`` are runs of which a task died by a signal at a random moment.
    """

    runs: int = 0
    runs_killed_at_random: int = 0
    kills: int = 0
    orders: int = 0
    lost: int = 0
    missing: int = 0
    wrong: int = 0
    duplicated: int = 0
    unexpected: int = 0
    families: Counter[str] = field(default_factory=Counter)

    def document(self) -> dict[str, Any]:
        return {**vars(self), "families": {name: self.families[name] for name in FAMILIES}}

    def add(self, document: dict[str, Any]) -> None:
        for name, value in document.items():
            if name == "families":
                self.families.update(value)
            else:
                setattr(self, name, getattr(self, name) + value)

    def write(self, path: Path) -> None:
        path.write_text(json.dumps(self.document()))


TOTALS = Totals()
"""Those of this process."""


def count_fault(family: int, times: int = 1) -> None:
    """Count faults of a family, by its number in the list above."""
    TOTALS.families[FAMILIES[family - 1]] += times
