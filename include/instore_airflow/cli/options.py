"""Options and arguments that several commands take."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer


class State(str, Enum):
    """Of a quarantined record."""

    QUARANTINED = "quarantined"
    REDRIVEN = "redriven"
    DISCARDED = "discarded"
    ANY = "any"


class Source(str, Enum):
    """Where a record came from."""

    TOPIC = "topic"
    EXTRACT = "extract"


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, for another program.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what would happen; change nothing.")]
MaxOption = Annotated[int, typer.Option("--max", min=1, max=100_000, help="Records at most, the oldest first.")]
ReasonOption = Annotated[str | None, typer.Option("--reason", help="Only those of this reason, such as too_large.")]
SourceOption = Annotated[Source | None, typer.Option("--source", help="Only those from here.")]
RunOption = Annotated[str | None, typer.Option("--run", help="Only those of this run, by its run id.")]
IdsArgument = Annotated[
    list[str] | None, typer.Argument(metavar="ID", help="Ids as `list` shows them; their first characters do.")
]
AllOption = Annotated[bool, typer.Option("--all", help="All of them, up to --max, where no id or filter is given.")]
