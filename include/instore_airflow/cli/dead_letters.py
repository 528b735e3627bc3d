"""``dead-letters``: the subscription's dead-letter queue."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from include.instore.ledger.audit import note_done
from include.instore.model.settings import load_settings
from include.instore.sources import dead_letters
from include.instore.sources.quarantine import tallied
from include.instore_airflow.cli.common import (
    DryRunOption,
    JsonOption,
    MaxOption,
    errors_told,
    opened,
    print_outcomes,
    print_rows,
)
from include.instore_airflow.connections import blobs, service_bus_client

dead_letters_app = typer.Typer(
    help="Messages in the subscription's dead-letter queue, where nothing expires.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)


@dead_letters_app.command("list")
def list_dead_letters(most: MaxOption = 100, as_json: JsonOption = False) -> None:
    """List the oldest dead letters: id, number, reason; never the message itself. They stay as they are."""
    with errors_told():
        letters = dead_letters.list_dead_letters(service_bus_client(), load_settings().bus, most)
    heads = ("message_id", "sequence_number", "enqueued_at", "reason", "description", "size")
    print_rows(heads, [asdict(letter) for letter in letters], as_json=as_json)


@dead_letters_app.command("redrive")
def redrive_dead_letters(
    most: MaxOption = 100,
    publish: Annotated[
        bool,
        typer.Option(
            "--publish",
            help="Land them, and publish them to the topic again: EVERY subscription of the topic gets them. Ids and "
            "properties are kept; needs the Send right.",
        ),
    ] = False,
    deferred: Annotated[
        bool,
        typer.Option("--deferred", help="Those on the subscription that somebody has deferred, not the dead letters."),
    ] = False,
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """Land dead letters that are orders by today's settings, and only then take them off the bus.

    What is still refused stays in the dead-letter queue and in quarantine, with today's reason; discarded there, the
    next redrive removes it. Stopped half way, it can simply be started again: nothing lands twice.
    """
    with opened() as ledger:
        settings = load_settings()
        redriven = dead_letters.redrive_dead_letters(
            service_bus_client(),
            ledger,
            settings,
            blobs(settings),
            limit=most,
            publish=publish,
            deferred=deferred,
            dry_run=dry_run,
        )
        if not dry_run:
            outcomes = redriven.outcomes
            note_done(ledger, "dead-letters redrive", len(outcomes), tallied(outcomes))
    print_outcomes(
        redriven.outcomes, dry_run, as_json, completed=redriven.completed, settle_failed=redriven.settle_failed
    )
