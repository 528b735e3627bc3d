"""``deliveries``: the events of which nobody can tell whether they were taken."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from include.instore.ledger.audit import note_done
from include.instore.ledger.held import Decision, decide, held_events
from include.instore.model.errors import FatalError
from include.instore_airflow.cli.common import (
    AllOption,
    DryRunOption,
    JsonOption,
    MaxOption,
    moment,
    opened,
    print_json,
    print_table,
)

deliveries_app = typer.Typer(
    help="Events that left, and of which nobody can tell whether they were taken.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@deliveries_app.command("list")
def list_held(most: MaxOption = 100, as_json: JsonOption = False) -> None:
    """List held events, the one that left first at the top: event id, edition, where its order came from, and why."""
    with opened() as ledger:
        events = held_events(ledger, (), most)
    if as_json:
        print_json([asdict(each) for each in events])
        return
    print_table(
        ("destination", "event id", "edition", "reference", "left", "reason", "run"),
        [
            (
                each.destination,
                each.event_id,
                str(each.edition),
                each.reference,
                moment(each.sending_at),
                each.reason,
                each.run,
            )
            for each in events
        ],
    )


@deliveries_app.command("settle")
def settle_held(
    decision: Annotated[
        Decision,
        typer.Option("--as", help="sent: it is there. send-again: it is not. ask-again: let the next run find out."),
    ],
    event_ids: Annotated[list[str] | None, typer.Argument(metavar="EVENT_ID", help="As `list` shows them.")] = None,
    everything: AllOption = False,
    most: MaxOption = 100,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Decide what becomes of held events, after looking for them in the Profile Store by their event id.

    What is sent again though it was taken is in the profile twice.
    """
    with opened() as ledger:
        if not event_ids and not everything:
            raise FatalError("No event is named; give event ids as `deliveries list` shows them, or --all.")
        events = held_events(ledger, event_ids or (), most)
        if missing := set(event_ids or ()) - {each.event_id for each in events}:
            raise FatalError(f"No held event has the id {sorted(missing)[0][:64]!r}; `deliveries list` shows them.")
        chosen = [each.event_id for each in events]
        settled = len(chosen) if dry_run else decide(ledger, chosen, decision)
        if not dry_run:
            note_done(ledger, "deliveries settle", settled, decision.value)
    if as_json:
        print_json({"dry_run": dry_run, "decision": decision.value, "counts": {"settled": settled}})
        return
    typer.echo(f"{'Dry run: ' if dry_run else ''}{settled} settled as {decision.value}")
