"""``check``: what files and messages would become, before the first run; no ledger, and for files no connection."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import simplejson
import typer

from include.instore.ledger.records import Arrival
from include.instore.model.codes import BROKEN_FILE
from include.instore.model.declarations import load_declaration
from include.instore.model.errors import ConfigurationError, RecordRefused
from include.instore.model.orders import InStoreOrder, order_of_payload
from include.instore.model.settings import Settings, load_settings
from include.instore.sources.adapters import Adapter, adapter_of_file, adapter_of_topic
from include.instore.sources.checking import Checked, check_file, check_message, check_topic
from include.instore.sources.landing import Record
from include.instore.sources.suggesting import as_yaml, suggest
from include.instore_airflow.cli.common import JsonOption, errors_told, print_json, print_table, printable
from include.instore_airflow.connections import blobs, service_bus_client

EXIT_REFUSED = 1
_COLUMNS = ("line", "number", "becomes", "store", "time", "total", "lines", "customer")
_SUMS = {True: "", False: ", do not add up", None: ", no totals"}


def check_files(
    files: Annotated[
        list[Path] | None, typer.Argument(metavar="FILE...", exists=True, dir_okay=False, readable=True)
    ] = None,
    adapter: Annotated[
        str, typer.Option("--adapter", metavar="FILE", help="A declaration; without it that of the settings.")
    ] = "",
    message: Annotated[bool, typer.Option("--message", help="The files are bodies of messages.")] = False,
    topic: Annotated[
        bool, typer.Option("--topic", help="Peek at the messages on the subscription, which stay, instead of files.")
    ] = False,
    show: Annotated[
        bool, typer.Option("--show", help="Print each order as it would be sent. It HOLDS PERSONAL DATA.")
    ] = False,
    proposed: Annotated[
        bool, typer.Option("--suggest", help="Propose a declaration, and say how sure each line of it is.")
    ] = False,
    most: Annotated[
        int, typer.Option("--max", min=1, help="Orders, and refused ones, of each file that are printed.")
    ] = 100,
    as_json: JsonOption = False,
) -> None:
    """Say what each order of these files, or messages, would become, and what is refused, where and why.

    Nothing is written.

    Exit codes: 0 all are orders; 1 something is refused, or the bus failed; 2 a setting or a declaration is wrong.
    """
    if topic is bool(files) or (topic and proposed):
        raise typer.BadParameter("name files, or --topic instead")
    if proposed:
        _suggest(files or [], as_json)
        return
    with errors_told():
        settings = load_settings()
        found = []
        for file in files or [Path(settings.bus.subscription)]:
            using = _adapter(file, adapter, message or topic, settings)
            if topic:
                checked = check_topic(service_bus_client(), using.settings, using)
            else:
                checked = (check_message if message else check_file)(file, using.settings, using)
            found.append(_checked(file.name, using, checked, show, most))
    if as_json:
        print_json(found)
    else:
        for each in found:
            _tell(each)
    raise typer.Exit(EXIT_REFUSED if any(each["refused"] for each in found) else 0)


def _suggest(files: list[Path], as_json: bool) -> None:
    with errors_told():
        found = [suggest(file) for file in files]
    if as_json:
        print_json([[asdict(guess) for guess in guesses] for guesses in found])
        return
    for file, guesses in zip(files, found, strict=True):
        typer.echo(f"# A proposal for {printable(file.name)}, which nothing uses. Look at each line of it.")
        typer.echo(printable(as_yaml(guesses), lines=True))


def _adapter(file: Path, declared: str, message: bool, settings: Settings) -> Adapter:
    try:
        if declared:
            return Adapter(settings, load_declaration(declared), blobs=blobs(settings))
    except ValueError as error:
        raise ConfigurationError(f"The adapter is wrong: {error}.") from None
    return adapter_of_topic(settings, blobs(settings)) if message else adapter_of_file(file.name, settings)


def _checked(name: str, adapter: Adapter, checked: Iterator[Checked], show: bool, most: int) -> dict[str, Any]:
    orders = refused = 0
    shown: list[dict[str, Any]] = []
    for record, became in checked:
        refused += isinstance(became, RecordRefused)
        orders += isinstance(became, Arrival)
        if (refused if isinstance(became, RecordRefused) else orders) <= most:
            shown.append(_row(record, became, show, name))
    return {
        "file": name,
        "adapter": adapter.name,
        "orders": orders,
        "refused": refused,
        "never_found": adapter.never_found if orders else [],
        "unused_columns": adapter.unused,
        "records": shown,
    }


def _row(record: Record, became: Arrival | RecordRefused, show: bool, name: str) -> dict[str, Any]:
    of, _, line = record.reference.rpartition(":")
    if record.source == "topic":
        line = record.reference
    elif member := of.removeprefix(name).lstrip("/"):
        line = f"{line} of {member}"
    order = record.order
    if isinstance(became, RecordRefused):
        number = order.order_number if isinstance(order, InStoreOrder) else ""
        return {"line": line, "number": number, "becomes": "refused", "code": became.reason, "detail": became.detail}
    row = became.row
    order = order_of_payload(row["payload"])
    customer = [name for name, column in (("card", "loyalty_card"), ("email", "email")) if row[column]]
    told = {
        "line": line,
        "number": row["order_number"],
        "becomes": row["order_type"],
        "store": row["store_id"],
        "time": row["order_time"].isoformat().replace("+00:00", "Z"),
        "total": f"{order.total} {order.currency}",
        "lines": f"{len(order.lines)}{_SUMS[order.adds_up()]}",
        "customer": ", ".join(customer) or "nobody",
    }
    return told | {"payload": row["payload"]} if show else told


def _tell(found: dict[str, Any]) -> None:
    typer.echo(f"{found['file']}, {'adapter ' + found['adapter'] if found['adapter'] else 'without an adapter'}")
    orders = [each for each in found["records"] if each["becomes"] != "refused"]
    if orders:
        print_table(_COLUMNS, [[each[name] for name in _COLUMNS] for each in orders])
    for each in found["records"]:
        _tell_record(each)
    if any(each.get("code") == BROKEN_FILE for each in found["records"]):
        typer.echo("A run loads nothing of this file until it is delivered whole, or a person releases it.")
    for what, names in (("never found", found["never_found"]), ("columns not used", found["unused_columns"])):
        if names:
            typer.echo(printable(f"{what}: {', '.join(names)}"))
    more = found["orders"] + found["refused"] - len(found["records"])
    typer.echo(f"{found['orders']} orders, {found['refused']} refused{f', {more} not shown' if more else ''}")


def _tell_record(record: dict[str, Any]) -> None:
    """Why it is refused; else its payload, where that was asked for."""
    if record["becomes"] == "refused":
        where = f"line {record['line']}" if record["line"][0].isdigit() else record["line"]
        number = f" (order {record['number']})" if record["number"] else ""
        typer.echo(printable(f"refused: {where}{number}: {record['code']}: {record['detail']}"))
    elif "payload" in record:
        payload = simplejson.loads(record["payload"], use_decimal=True)
        typer.echo(printable(simplejson.dumps(payload, indent=2, ensure_ascii=False), lines=True))
