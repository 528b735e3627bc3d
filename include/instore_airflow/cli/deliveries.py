"""``deliveries``: the events that are held or were rejected, of which a person decides."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from include.instore.ledger.audit import note_done
from include.instore.ledger.held import DECIDED, Decision, decide, held_events
from include.instore.model.errors import FatalError
from include.instore_airflow.cli.common import (
    AllOption,
    DryRunOption,
    JsonOption,
    MaxOption,
    counted_first,
    opened,
    print_done,
    print_rows,
)

deliveries_app = typer.Typer(
    help="Events that left, and of which a person has to decide: held, or rejected.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


RejectedOption = Annotated[bool, typer.Option("--rejected", help="Those that the destination refused.")]


@deliveries_app.command("list")
def list_held(rejected: RejectedOption = False, most: MaxOption = 100, as_json: JsonOption = False) -> None:
    """List held events, the one that left first at the top: event id, edition, where its order came from, and why."""
    with opened() as ledger:
        events = held_events(ledger, (), most, DECIDED[Decision.GIVE_UP if rejected else Decision.SENT])
    heads = ("destination", "event_id", "edition", "reference", "sending_at", "reason", "run")
    print_rows(heads, [asdict(each) for each in events], as_json=as_json)


@deliveries_app.command("settle")
def settle_held(
    event_ids: Annotated[list[str] | None, typer.Argument(metavar="EVENT_ID", help="As `list` shows them.")] = None,
    sent: Annotated[bool, typer.Option("--sent", help="It is there.")] = False,
    send_again: Annotated[bool, typer.Option("--send-again", help="It is not there: the next run sends it.")] = False,
    ask_again: Annotated[bool, typer.Option("--ask-again", help="Let the next run find out.")] = False,
    give_up: Annotated[bool, typer.Option("--give-up", help="It was rejected, and is not wanted.")] = False,
    everything: AllOption = False,
    rejected: RejectedOption = False,
    most: MaxOption = 100,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Decide what becomes of held events, after looking for them in the Profile Store by their event id.

    What is sent again though it was taken is in the profile twice. Rejected ones are sent again, or given up.
    """
    chosen = [each for each, said in zip(Decision, (sent, send_again, ask_again, give_up), strict=True) if said]
    with opened() as ledger:
        if len(chosen) != 1:
            raise FatalError("Give one of --sent, --send-again, --ask-again and --give-up.")
        if not event_ids and not everything:
            raise FatalError("No event is named; give event ids as `deliveries list` shows them, or --all.")
        (decision,) = chosen
        statuses = DECIDED[decision] if event_ids else DECIDED[decision][-1 if rejected else 0 :][:1]
        events = held_events(ledger, event_ids or (), most, statuses)
        ids = [each.event_id for each in events]
        if missing := sorted({*(event_ids or ())} - {*ids}):
            raise FatalError(
                f"No event has the id {missing[0][:64]!r} to which that applies; `deliveries list` shows those held, "
                "and with --rejected those rejected."
            )
        counted_first(events, "events")
        settled = len(ids) if dry_run else decide(ledger, ids, decision)
        if not dry_run:
            note_done(ledger, "deliveries settle", settled, decision.value)
    told = f"{settled} settled as {decision.value}"
    print_done(told, dry_run, as_json, decision=decision.value, counts={"settled": settled})
