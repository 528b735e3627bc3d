"""The page "In-store orders" in Airflow's UI: where orders are, and what a person may do about them.

Who may see the DAG may see it, and who may edit the DAG may act: the first rule stands on the whole app, so no route
can be without it. A form is taken from this page only, an action shows first what it would do, and each is written
down. Cards and emails are masked, but for who may read the ledger's connection. What is searched for goes in a
request's body, not in an address. Nothing is loaded from anywhere: no script, no picture, no font, and the browser is
told so.
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import ConnectionDetails
from airflow.api_fastapi.core_api.security import GetUserDep, requires_access_dag
from fastapi import Depends, FastAPI, Form, HTTPException, Query, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader

from include.instore.ledger import Ledger
from include.instore.ledger.audit import done, note_done
from include.instore.ledger.quarantined import NotInQuarantine, Quarantined, Wanted, find
from include.instore.ledger.read_figures import (
    COUNTED,
    By,
    list_files,
    list_runs,
    report,
    total,
    undelivered,
    volume,
    wrong_now,
)
from include.instore.ledger.read_orders import FEW, Order, find_orders, life, list_orders
from include.instore.model.codes import CODES, CUT_ORDER, SPLIT_ORDER
from include.instore.model.customer_keys import masked
from include.instore.model.errors import InStoreError, RetriableError
from include.instore.model.settings import load_settings
from include.instore.model.windows import OWN_DAG
from include.instore.sources.quarantine import order_numbers, quarantined_as
from include.instore_airflow.connections import LEDGER, open_ledger, service_bus_client
from include.instore_airflow.page.actions import ACTIONS, DEAD_LETTERS, OF_ORDERS, OF_QUARANTINE, Chosen, carry_out
from include.instore_airflow.page_links import base_path, base_url, list_of, place_of

_TEMPLATES = Path(__file__).parent
_DAYS = 14
_MOST = 100
_MOST_CHOSEN = 2000
_SHOWN_BYTES = 20_000
_KINDS = {
    "number": "order number", "card": "loyalty card", "email": "email", "event_id": "event id",
    "origin": "message id or file",
}  # fmt: skip


@cache
def app() -> FastAPI:
    """The page, to be mounted into Airflow's API server."""
    rules = [Depends(_SEE), Depends(_from_this_page)]
    # FastAPI's own pages would be there without the rules.
    made = FastAPI(dependencies=rules, docs_url=None, redoc_url=None, openapi_url=None)
    made.add_exception_handler(InStoreError, _failed)
    routes: dict[str, Callable[..., HTMLResponse]] = {
        "/": _overview, "/orders": _search, "/orders/{event_id}": _order, "/undelivered": _undelivered,
        "/runs": _runs, "/run": _run, "/files": _files, "/quarantine": _quarantine, "/quarantine/{id}": _record,
        "/dead-letters": _dead_letters, "/done": _done,
    }  # fmt: skip
    for path, view in routes.items():
        made.add_api_route(path, view, methods=["GET"])
    forms: dict[str, tuple[Callable[..., HTMLResponse], Any]] = {
        "/orders": (_found, _SEE), "/orders/{event_id}": (_order, _may_unmask),
        "/quarantine/{id}": (_record, _may_unmask), "/preview": (_preview, _EDIT), "/confirm": (_confirm, _EDIT),
    }  # fmt: skip
    for path, (view, rule) in forms.items():
        made.add_api_route(path, view, methods=["POST"], dependencies=[Depends(rule)])
    return made


_SEE: Any = requires_access_dag("GET", param_dag_id=OWN_DAG)
_EDIT: Any = requires_access_dag("PUT", param_dag_id=OWN_DAG)


def _from_this_page(request: Request) -> None:
    """A change comes from a form of this page, or from who has put a token into the request, as no browser does."""
    if request.method == "GET" or request.headers.get("authorization", "").lower().startswith("bearer "):
        return
    origin = urlsplit(request.headers.get("origin", ""))
    if not origin.netloc or origin.netloc not in (request.headers.get("host"), urlsplit(base_url()).netloc):
        raise HTTPException(403, "This form is not one of the page In-store orders.")


def _sees_persons(user: GetUserDep) -> bool:
    """Whoever may read the ledger's connection can read what is in the ledger."""
    details = ConnectionDetails(conn_id=LEDGER)
    return get_auth_manager().is_authorized_connection(method="GET", details=details, user=user)


def _may_unmask(user: GetUserDep) -> None:
    if not _sees_persons(user):
        raise HTTPException(403, f"Cards and emails are for who may read connection {LEDGER}.")


def _edits(request: Request, user: GetUserDep) -> bool:
    try:
        _EDIT(request, user)
    except HTTPException:
        return False
    return True


Sees = Annotated[bool, Depends(_sees_persons)]
Edits = Annotated[bool, Depends(_edits)]


@cache
def _ledger() -> Ledger:
    return open_ledger()


def _today() -> date:
    return datetime.now(ZoneInfo(load_settings().orders.store_timezone)).date()


def _overview(request: Request, until: date | None = None) -> HTMLResponse:
    ledger, today = _ledger(), until or _today()
    first = today - timedelta(days=_DAYS - 1)
    came = {line.group: line for line in report(ledger, By.DAY, first, today)}
    days = [came.get(day) or total([], day) for day in (f"{first + timedelta(days=n)}" for n in range(_DAYS))]
    whole = total(days)
    stores, sources = ([line.shown() for line in report(ledger, by, first, today)] for by in (By.STORE, By.SOURCE))
    wrong = [each | {"list": place_of(each["cause"], ledger)} for each in wrong_now(ledger)]
    return _page(
        request, "overview.html", "Overview", days=days, today=days[-1].shown(), whole=whole,
        stores=stores, sources=sources, by_day=[line.shown() for line in (whole, *reversed(days))], wrong=wrong,
        causes=_causes(ledger),
    )  # fmt: skip


def _causes(ledger: Ledger) -> list[dict[str, Any]]:
    """What is not delivered, each with where its orders are listed."""
    found = undelivered(ledger, load_settings())
    for each in found:
        word = each["reason"] if each["cause"] in ("quarantined", "unmatched") else each["cause"]
        each["list"] = "/files" if word.endswith(" file") else list_of(word) or f"/undelivered?status={each['cause']}"
    return found


def _search(request: Request) -> HTMLResponse:
    return _page(request, "orders.html", "Orders", kinds=_KINDS)


def _found(
    request: Request, edits: Edits, kind: Annotated[str, Form()], text: Annotated[str, Form(max_length=1024)]
) -> HTMLResponse:
    if kind not in _KINDS or not text.strip():
        raise HTTPException(422, "Say what orders are searched by.")
    asked: dict[str, Any] = {kind: text.strip()}
    found = find_orders(_ledger(), load_settings().orders, limit=_MOST, **asked)
    aside = quarantined_as(_ledger(), text.strip(), load_settings()) if kind == "number" else []
    return _page(
        request, "orders.html", "Orders", kinds=_KINDS, kind=kind, orders=_rows(found),
        aside=[vars(each) | {"record": each.id[:12]} for each in aside],
        actions=_offered(OF_ORDERS, edits),
    )  # fmt: skip


def _rows(found: Sequence[Order]) -> list[dict[str, Any]]:
    return [each.shown() | {"id": each.row["event_id"]} for each in found]


def _offered(names: Sequence[str], edits: bool, status: str = "") -> dict[str, str]:
    """What may be done, by its word; nothing for who may not edit."""
    which = [name for name in names if not status or status in ACTIONS[name].statuses]
    return {name: ACTIONS[name].label for name in which} if edits else {}


def _order(request: Request, event_id: str, user: GetUserDep, sees: Sees) -> HTMLResponse:
    found = find_orders(_ledger(), load_settings().orders, event_id=event_id)
    if not found:
        raise HTTPException(404, "No order has this event.")
    unmask = request.method == "POST"
    if unmask:
        note_done(_ledger(), "orders show --unmask", 1, found[0].row["order_number"], user.get_name())
    told = life(_ledger(), found[0], load_settings())
    shown = found[0].shown((lambda text: text or "") if unmask else masked)
    return _page(request, "order.html", "Order", order=shown, unmask=sees and not unmask, **told)


def _undelivered(
    request: Request, edits: Edits, status: str = "", reason: str = "", store: str = "", day: str = "", run: str = ""
) -> HTMLResponse:
    if status and status not in FEW and not day and not run:
        day = f"{_today()}"
    asked = {"status": status, "reason": reason, "store": store, "day": day, "run": run}
    found = list_orders(_ledger(), limit=_MOST, **asked) if status or day or run else []
    return _page(
        request, "undelivered.html", "Undelivered", asked=asked, causes=[] if found else _causes(_ledger()),
        orders=_rows(found), actions=_offered(OF_ORDERS, edits, status), most=_MOST_CHOSEN,
    )  # fmt: skip


def _preview(
    request: Request, user: GetUserDep, action: Annotated[str, Form()], ids: Annotated[Sequence[str], Form()] = (),
    every: Annotated[str, Form()] = "", status: Annotated[str, Form()] = "", reason: Annotated[str, Form()] = "",
    store: Annotated[str, Form()] = "", day: Annotated[str, Form()] = "", run: Annotated[str, Form()] = "",
) -> HTMLResponse:  # fmt: skip
    """What an action would do, of each record that it would change; nothing is changed."""
    if every and action in OF_ORDERS:
        found = list_orders(_ledger(), status=status, reason=reason, store=store, day=day, run=run, limit=_MOST_CHOSEN)
        ids = [each.row["event_id"] for each in found]
    elif every:
        waits = find(_ledger(), Wanted(reason=reason or None, run=run or None, limit=_MOST_CHOSEN))
        # What may be the half of an order is redriven by its own name only.
        ids = [each.id for each in waits if each.reason not in (CUT_ORDER, SPLIT_ORDER)]
    return _acted(request, user, action, ids, dry_run=True)


def _confirm(
    request: Request, user: GetUserDep, action: Annotated[str, Form()], ids: Annotated[str, Form()] = ""
) -> HTMLResponse:
    """Do to these, and to no others, what the preview said."""
    return _acted(request, user, action, ids.split(), dry_run=False)


def _acted(request: Request, user: Any, action: str, ids: Sequence[str], *, dry_run: bool) -> HTMLResponse:
    if action not in ACTIONS or len(ids) > _MOST_CHOSEN:
        raise HTTPException(422, f"Say what is to be done, of {_MOST_CHOSEN} records at most.")
    did = carry_out(action, Chosen(_ledger(), load_settings(), ids, user.get_name(), dry_run))
    heads: tuple[str, ...] = ("order_number", "store_id", "status", "reason", "card", "events", "reference")
    if action in OF_QUARANTINE or action == "dead-letters":
        heads = ("id", "reference", "outcome", "reason", "detail")
    title = "To be confirmed" if dry_run else "Done"
    others = len(ids) - len(did.rows) if ids else 0
    return _page(
        request, "action.html", title, action=action, label=ACTIONS[action].label, did=did, heads=heads,
        others=others, dry_run=dry_run,
    )  # fmt: skip


def _runs(request: Request, kind: str = "") -> HTMLResponse:
    runs = list_runs(_ledger(), kind=kind, limit=_MOST)
    summed = {"run": f"{len(runs)} runs"} | {name: sum(run[name] for run in runs) for name in COUNTED}
    return _table(request, "Runs", ("run", "kind", "state", "window", "started", *COUNTED), [summed, *runs])


def _run(request: Request, run: Annotated[str, Query(alias="id")]) -> HTMLResponse:
    found = list_runs(_ledger(), run=run)
    if not found:
        raise HTTPException(404, "The ledger has no such run.")
    (before,) = list_runs(_ledger(), kind=found[0]["kind"], before=found[0]["started"], limit=1) or [{"counts": {}}]
    dag, _, airflows_id = run.rpartition("/")
    grid = f"{base_path()}/dags/{quote(dag or OWN_DAG)}/runs/{quote(airflows_id.partition('#')[0])}"
    whole, earlier = (each | each.pop("counts") for each in (found[0], before))
    rows = [
        {"count": name, "value": value, "run_before": earlier.get(name), "changed": _change(value, earlier.get(name))}
        for name, value in whole.items()
    ]
    return _table(request, "Run", ("count", "value", "run_before", "changed"), rows, grid=grid)


def _change(value: Any, before: Any) -> str:
    return f"{value - before:+d}" if type(value) is type(before) is int and value != before else ""


def _files(request: Request, path: str = "") -> HTMLResponse:
    heads = ("path", "state", "loaded_at", "orders", "usual", "bad_rows", "detail", "run")
    came = volume(_ledger(), datetime.now(timezone.utc))
    return _table(request, "Files", heads, list_files(_ledger(), _MOST, path=path), volume=came)


def _quarantine(request: Request, edits: Edits, reason: str = "", run: str = "") -> HTMLResponse:
    rows = find(_ledger(), Wanted(reason=reason or None, run=run or None, limit=_MOST))
    numbers = order_numbers(_ledger(), rows, load_settings())
    heads = ("record", "received_at", "source", "reference", "order_number", "reason", "detail", "run")
    shown = [vars(row) | {"record": row.id[:12], "order_number": numbers.get(row.id)} for row in rows]
    return _table(
        request, "Quarantine", heads, shown, asked={"reason": reason, "run": run},
        actions=_offered(OF_QUARANTINE, edits), most=_MOST_CHOSEN,
    )  # fmt: skip


def _record(request: Request, id: str, user: GetUserDep, sees: Sees, edits: Edits) -> HTMLResponse:
    (row,) = find(_ledger(), Wanted(ids=(id,)), with_raw=True)
    unmask = request.method == "POST"
    if unmask:
        note_done(_ledger(), "quarantine show --raw", 1, row.id, user.get_name())
    raw = (row.heading + row.raw[:_SHOWN_BYTES]).decode("utf-8", "backslashreplace") if unmask else _masked_record(row)
    names = ("id", "received_at", "source", "reference", "reason", "detail", "run", "state", "size", "adapter")
    return _page(
        request, "record.html", "Record", row={name: getattr(row, name) for name in names}, code=CODES.get(row.reason),
        raw=raw, unmask=sees and not unmask, actions=_offered(OF_QUARANTINE, edits),
    )  # fmt: skip


def _masked_record(row: Quarantined) -> str:
    """Its shape: separators, quotes and names of fields; of what it says every letter is x and every digit 9."""
    raw = row.raw[:_SHOWN_BYTES]
    try:
        return json.dumps(_masked_value(json.loads(raw)), indent=1, ensure_ascii=False)
    except (ValueError, RecursionError):
        return _shape((row.heading + raw).decode("utf-8", "backslashreplace"))


def _masked_value(value: Any) -> Any:
    if isinstance(value, dict):
        return {name if name.isidentifier() else _shape(name): _masked_value(each) for name, each in value.items()}
    return [_masked_value(each) for each in value] if isinstance(value, list) else _shape(json.dumps(value).strip('"'))


def _shape(text: str) -> str:
    return re.sub(r"[^\W\d_]", "x", re.sub(r"\d", "9", text))


def _dead_letters(request: Request, edits: Edits) -> HTMLResponse:
    from include.instore.sources.dead_letters import list_dead_letters  # the SDK is loaded where it is needed only

    letters = list_dead_letters(service_bus_client(), load_settings().bus, DEAD_LETTERS)
    heads = ("message_id", "sequence_number", "enqueued_at", "reason", "description", "size")
    shown = [vars(each) for each in letters]
    return _table(request, "Dead letters", heads, shown, actions=_offered(("dead-letters",), edits))


def _done(request: Request) -> HTMLResponse:
    return _table(
        request, "Done", ("at", "who", "what", "records", "detail"), [vars(x) for x in done(_ledger(), _MOST)]
    )


def _failed(request: Request, error: Exception) -> HTMLResponse:
    """Our own errors are a sentence for a person."""
    status = 503 if isinstance(error, RetriableError) else 404 if isinstance(error, NotInQuarantine) else 400
    return _page(request, "base.html", "This did not work", status, error=str(error))


def _table(request: Request, title: str, heads: Any, rows: Sequence[Mapping[str, Any]], **more: Any) -> HTMLResponse:
    return _page(request, "table.html", title, heads=heads, rows=rows, **more)


def _page(request: Request, template: str, title: str, status: int = 200, **values: Any) -> HTMLResponse:
    # Where the app is mounted, behind whatever path the API server has.
    values |= {"root": request.scope.get("root_path", ""), "title": title}
    return HTMLResponse(_environment().get_template(template).render(values), status, headers=_headers())


@cache
def _headers() -> dict[str, str]:
    digest = base64.b64encode(hashlib.sha256((_TEMPLATES / "style.css").read_bytes()).digest()).decode()
    return {
        "Content-Security-Policy": f"default-src 'none'; style-src 'sha256-{digest}'; form-action 'self'; "
        "frame-ancestors 'self'; base-uri 'none'",
        "Cache-Control": "no-store",
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
    }


@cache
def _environment() -> Environment:
    made = Environment(loader=FileSystemLoader(_TEMPLATES), autoescape=True, trim_blocks=True, lstrip_blocks=True)
    made.filters["told"] = _told
    made.globals["style"] = (_TEMPLATES / "style.css").read_text()
    return made


def _told(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name}: {_told(each)}" for name, each in value.items())
    if isinstance(value, list | tuple):
        return "; ".join(map(_told, value))
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return "" if value is None else f"{value:.1%}" if isinstance(value, float) else str(value)
