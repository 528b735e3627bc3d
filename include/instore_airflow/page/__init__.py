"""The page "In-store orders" in Airflow's UI: it shows, and changes nothing.

Who may see the DAG may see it: the rule stands on the whole app, so no route can be without it. Cards and emails are
masked; what is searched for goes in a request's body, not in an address. Nothing is loaded from anywhere: no script,
no picture, no font, and the browser is told so.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.sdk.configuration import conf
from fastapi import Depends, FastAPI, Form, HTTPException, Query, Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader

from include.instore.ledger import Ledger
from include.instore.ledger.quarantined import Wanted, find
from include.instore.ledger.read_figures import (
    COUNTED,
    By,
    list_files,
    list_runs,
    report,
    total,
    undelivered,
    wrong_now,
)
from include.instore.ledger.read_orders import find_orders, life
from include.instore.model.errors import InStoreError, RetriableError
from include.instore.model.settings import load_settings
from include.instore.model.windows import OWN_DAG
from include.instore.sources.quarantine import order_numbers, quarantined_as
from include.instore_airflow.connections import open_ledger

_TEMPLATES = Path(__file__).parent
_DAYS = 14
_MOST = 100
_KINDS = {
    "number": "order number", "card": "loyalty card", "email": "email", "event_id": "event id",
    "origin": "message id or file",
}  # fmt: skip


@cache
def app() -> FastAPI:
    """The page, to be mounted into Airflow's API server."""
    rule = Depends(requires_access_dag("GET", param_dag_id=OWN_DAG))
    # FastAPI's own pages would be there without the rule.
    made = FastAPI(dependencies=[rule], docs_url=None, redoc_url=None, openapi_url=None)
    made.add_exception_handler(InStoreError, _failed)
    routes: dict[str, Callable[..., HTMLResponse]] = {
        "/": _overview, "/orders": _search, "/orders/{event_id}": _order, "/runs": _runs, "/run": _run,
        "/files": _files, "/quarantine": _quarantine,
    }  # fmt: skip
    for path, view in routes.items():
        made.add_api_route(path, view, methods=["GET"])
    made.add_api_route("/orders", _found, methods=["POST"])
    return made


@cache
def _ledger() -> Ledger:
    return open_ledger()


def _overview(request: Request) -> HTMLResponse:
    settings, ledger = load_settings(), _ledger()
    today = datetime.now(ZoneInfo(settings.orders.store_timezone)).date()
    first = today - timedelta(days=_DAYS - 1)
    came = {line.group: line for line in report(ledger, By.DAY, first, today)}
    days = [came.get(day) or total([], day) for day in (f"{first + timedelta(days=n)}" for n in range(_DAYS))]
    whole = total(days)
    stores, sources = ([line.shown() for line in report(ledger, by, first, today)] for by in (By.STORE, By.SOURCE))
    return _page(
        request, "overview.html", "Overview", days=days, today=days[-1].shown(), whole=whole,
        stores=stores, sources=sources,
        by_day=[line.shown() for line in (whole, *reversed(days))], wrong=wrong_now(ledger),
        causes=undelivered(ledger, settings),
    )  # fmt: skip


def _search(request: Request) -> HTMLResponse:
    return _page(request, "orders.html", "Orders", kinds=_KINDS)


def _found(request: Request, kind: Annotated[str, Form()], text: Annotated[str, Form(max_length=1024)]) -> HTMLResponse:
    if kind not in _KINDS or not text.strip():
        raise HTTPException(422, "Say what orders are searched by.")
    asked: dict[str, Any] = {kind: text.strip()}
    orders = [each.shown() for each in find_orders(_ledger(), load_settings().orders, limit=_MOST, **asked)]
    aside = quarantined_as(_ledger(), text.strip(), load_settings()) if kind == "number" else []
    return _page(request, "orders.html", "Orders", kinds=_KINDS, kind=kind, orders=orders, aside=map(vars, aside))


def _order(request: Request, event_id: str) -> HTMLResponse:
    found = find_orders(_ledger(), load_settings().orders, event_id=event_id)
    if not found:
        raise HTTPException(404, "No order has this event.")
    told = life(_ledger(), found[0], load_settings())
    return _page(request, "order.html", "Order", order=found[0].shown(), **told)


def _runs(request: Request, kind: str = "") -> HTMLResponse:
    runs = list_runs(_ledger(), kind=kind, limit=_MOST)
    summed = {"run": f"{len(runs)} runs"} | {name: sum(run[name] for run in runs) for name in COUNTED}
    return _table(request, "Runs", ("run", "kind", "state", "window", "started", *COUNTED), [summed, *runs])


def _run(request: Request, run: Annotated[str, Query(alias="id")]) -> HTMLResponse:
    found = list_runs(_ledger(), run=run)
    if not found:
        raise HTTPException(404, "The ledger has no such run.")
    dag, _, airflows_id = run.rpartition("/")
    base = urlsplit(str(conf.get("api", "base_url", fallback=""))).path.rstrip("/")
    grid = f"{base}/dags/{quote(dag or OWN_DAG)}/runs/{quote(airflows_id.partition('#')[0])}"
    whole = found[0] | found[0].pop("counts")
    rows = [{"count": name, "value": value} for name, value in whole.items()]
    return _table(request, "Run", ("count", "value"), rows, grid=grid)


def _files(request: Request) -> HTMLResponse:
    heads = ("path", "state", "loaded_at", "orders", "bad_rows", "detail", "run")
    return _table(request, "Files", heads, list_files(_ledger(), _MOST))


def _quarantine(request: Request) -> HTMLResponse:
    rows = find(_ledger(), Wanted(limit=_MOST))
    numbers = order_numbers(_ledger(), rows, load_settings())
    heads = ("id", "received_at", "source", "reference", "order_number", "reason", "detail", "run")
    shown = [vars(row) | {"id": row.id[:12], "order_number": numbers.get(row.id)} for row in rows]
    return _table(request, "Quarantine", heads, shown)


def _failed(request: Request, error: Exception) -> HTMLResponse:
    """Our own errors are a sentence for a person."""
    status = 503 if isinstance(error, RetriableError) else 400
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
