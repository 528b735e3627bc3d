"""``extracts``: the files that could not be read to their end, or are not read yet."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from include.instore.ledger.audit import note_done
from include.instore.ledger.extract_files import move_waiting, waiting_files
from include.instore.model.errors import FatalError
from include.instore.model.states import ExtractState
from include.instore_airflow.cli.common import (
    DryRunOption,
    JsonOption,
    MaxOption,
    counted_first,
    opened,
    print_counts,
    print_rows,
)

extracts_app = typer.Typer(
    help="Extracts that could not be read to their end, or are not read yet. Nothing of them was landed; they wait.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
_Paths = Annotated[list[str], typer.Argument(metavar="PATH", help="Files as `list` shows them.")]


@extracts_app.command("list")
def list_waiting(most: MaxOption = 100, as_json: JsonOption = False) -> None:
    """List files that wait, the one found first at the top: where each cannot be read on, or why it is not read."""
    with opened() as ledger:
        files = waiting_files(ledger, limit=most)
    heads = ("path", "state", "loaded_at", "orders", "detail", "run")
    print_rows(heads, [asdict(each) for each in files], as_json=as_json)


@extracts_app.command("release")
def release_waiting(paths: _Paths, dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Have the next run read these files again and load what is before the fault, as far as that is.

    After a setting was corrected that is the whole file, and where it only waited for its marker. The record at the
    fault goes into quarantine; what is behind it is not read. A file larger than INSTORE_MAX_EXTRACT_BYTES waits again.
    """
    _move(paths, "release", ExtractState.RELEASED, dry_run, as_json)


@extracts_app.command("forget")
def forget_waiting(paths: _Paths, dry_run: DryRunOption = False, as_json: JsonOption = False) -> None:
    """Give these files up as they are; one that comes in another version is loaded all the same."""
    _move(paths, "forget", ExtractState.FORGOTTEN, dry_run, as_json)


def _move(paths: list[str], command: str, state: ExtractState, dry_run: bool, as_json: bool) -> None:
    with opened() as ledger:
        found = [each.path for each in waiting_files(ledger, paths, limit=len(paths))]
        if missing := set(paths) - set(found):
            raise FatalError(f"No extract {sorted(missing)[0][:200]!r} waits; `extracts list` shows those that do.")
        counted_first(found, "files")
        moved = len(found) if dry_run else move_waiting(ledger, found, state)
        if not dry_run:
            note_done(ledger, f"extracts {command}", moved, ", ".join(found))
    print_counts(state.value, moved, dry_run, as_json)
