"""``report`` and ``runs``: how many orders came and arrived, by day, store, source, hour or run."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from include.instore.ledger.read_figures import COUNTED, By, list_runs, report, total
from include.instore.model.errors import FatalError
from include.instore.model.settings import load_settings
from include.instore_airflow.cli.common import (
    CsvOption,
    JsonOption,
    MaxOption,
    opened,
    print_json,
    print_rows,
    printable,
)

runs_app = typer.Typer(help="Runs and their counts.", no_args_is_help=True)

_DAYS = 14


def print_report(
    by: Annotated[By, typer.Option("--by", help="What the orders are added up by; hours are of UTC.")] = By.DAY,
    first: Annotated[str, typer.Option("--from", help="First day: 2017-06-05. Empty: 13 days before the last.")] = "",
    last: Annotated[str, typer.Option("--to", help="Last day, in the stores' time zone. Empty: today.")] = "",
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Report how many orders came and where they are, by day, store, source or hour.

    received = delivered + waiting + unmatched + suppressed + set aside (rejected, held, cancelled). Quarantined records
    are not orders: they are counted separately, by their arrival. Hours are by default those of the last day.
    """
    with opened() as ledger:
        end = _day(last) or datetime.now(ZoneInfo(load_settings().orders.store_timezone)).date()
        begin = _day(first) or (end if by is By.HOUR else end - timedelta(days=_DAYS - 1))
        lines = report(ledger, by, begin, end)
    whole = total(lines).shown()
    rows = [each.shown() for each in lines]
    print_rows(list(whole), rows if as_json or as_csv else [*rows, whole], as_json=as_json, as_csv=as_csv)


@runs_app.command("list")
def list_some_runs(
    kind: Annotated[
        str, typer.Option("--kind", help="Only scheduled, woken, manual, backfill, cleared or redrive ones.")
    ] = "",
    most: MaxOption = 50,
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """List runs, the last one at the top, with their counts and, below, all of them added up."""
    heads = ("run", "kind", "state", "window", "started", "ended", *COUNTED)
    with opened() as ledger:
        rows = list_runs(ledger, kind=kind, limit=most)
    if not (as_json or as_csv):
        summed = {name: sum(row[name] for row in rows) for name in COUNTED}
        rows.append(dict.fromkeys(heads) | {"run": "total"} | summed)
    print_rows(heads, rows, as_json=as_json, as_csv=as_csv)


@runs_app.command("show")
def show_run(
    run: Annotated[str, typer.Argument(metavar="RUN", help="The run's id, as `list` shows it.")],
    as_json: JsonOption = False,
    as_csv: CsvOption = False,
) -> None:
    """Show all counts of one run, and why it is red, if it is."""
    with opened() as ledger:
        found = list_runs(ledger, run=run)
        if not found:
            raise FatalError(f"The ledger has no run {printable(run)[:200]!r}; `runs list` shows those it has.")
    if as_json:
        print_json(found[0])
        return
    whole = found[0] | found[0].pop("counts")
    print_rows(("count", "value"), [{"count": name, "value": value} for name, value in whole.items()], as_csv=as_csv)


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text) if text else None
    except ValueError:
        raise FatalError(f"{printable(text)[:20]!r} is not a day; write it as 2017-06-05.") from None
