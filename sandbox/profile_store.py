"""The Tracking API and the Profile Store API on one port (contracts.md, sections 2 and 3).

    POST   /api/v1.0/Track                         one event
    POST   /api/v1.0/TrackBulk                     an array of at most 100 events, each at most 256 KB
    GET    /api/v1.0/trackevents/                  $filter, $skip, $top, $orderBy
    GET    /api/v1.0/Profiles                      $filter, $skip, $top
    GET    /api/v1.0/profiles/{scope}/{id}
    DELETE /api/v1.0/trackingevents/{scope}/{id}   the events with this track id
    GET    /                                       a page for people
    GET    /sandbox/events?after=&limit=           everything accepted, each event's exact text, for tests

What the vendor does not document is decided here as the strictest thing a client must survive: success is a 200 with
an empty object; a bulk request with one bad event is refused whole; nothing is deduplicated; comparisons mind the case.
"""

from __future__ import annotations

import hmac
import json
import random
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from fastapi import FastAPI, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from pydantic import Field
from starlette.types import ASGIApp, Scope

from . import page
from .control import with_sandbox_controls
from .event_store import EVENT_FIELDS, EVENT_ORDER, PROFILE_FIELDS, EventStore, Row
from .faults import Faults, FaultSettings
from .odata import Condition, Page, QueryError, parse_filter, parse_order, parse_page
from .raw_json import RawJSONError, RawObject, read_array_of_objects, read_object
from .serving import StandIn
from .track_event import MAX_EVENT_BYTES, EventRefusedError, TrackEvent, accept, microseconds, order_number_of

TRACK = "/api/v1.0/Track"
TRACK_BULK = "/api/v1.0/TrackBulk"
EVENTS = "/api/v1.0/trackevents/"
PROFILES = "/api/v1.0/Profiles"
PROFILE = "/api/v1.0/profiles/{scope}/{id}"
EVENTS_OF_ID = "/api/v1.0/trackingevents/{scope}/{id}"
MAX_BULK_EVENTS = 100
_MAX_BODY = MAX_BULK_EVENTS * (MAX_EVENT_BYTES + 16)
_MOST_EVENTS_TO_TESTS = 10_000


class ProfileStoreFaults(FaultSettings):
    """The Profile Store's knobs: those of every stand-in, and some ways in which it is inconvenient.

    ingest_delay: seconds until an accepted event can be read through the API.
    ingest_spread: seconds that this takes longer at most; how much of it, each event has for itself.
    ignores_filter: a query for events is answered as if it had no filter.
    empty_pages: a query for events is answered without any, with their count.
    item_statuses: a bulk request is answered 207 with a status for each of its events, these taken in turn from its
        first event on; those of 400 and above are not stored.
    blacklist: emails (compared in lower case) whose events are accepted and silently ignored.
    """

    ingest_delay: float = Field(default=0, ge=0)
    ingest_spread: float = Field(default=0, ge=0)
    ignores_filter: bool = False
    empty_pages: bool = False
    item_statuses: tuple[int, ...] = ()
    blacklist: frozenset[str] = frozenset()


def _error(status: int, code: str, message: str, errors: list[dict[str, Any]] | None = None) -> Response:
    body: dict[str, Any] = {"code": code, "message": message}
    if errors:
        body["errors"] = errors
    return JSONResponse(body, status_code=status)


class _Gate:
    """Both documented ways to show the key: the gateway's header, and the epi-single scheme."""

    def __init__(self, key: str) -> None:
        self._key = key.encode()

    def admits(self, request: Request) -> bool:
        shown = request.headers.get("ocp-apim-subscription-key")
        if shown is None:
            scheme, _, shown = request.headers.get("authorization", "").partition(" ")
            if scheme.lower() != "epi-single":
                return False
        return hmac.compare_digest(shown.strip().encode("latin-1"), self._key)


_DENIED = _error(401, "unauthorized", "Access denied due to missing or invalid subscription key.")


class _Tracking:
    """The writing side."""

    def __init__(self, store: EventStore, faults: Faults[ProfileStoreFaults]) -> None:
        self._store = store
        self._faults = faults

    async def take(self, request: Request, *, bulk: bool) -> Response:
        if "json" not in request.headers.get("content-type", "").lower():
            return _error(415, "unsupported_media_type", "The content type must be application/json.")
        if int(request.headers.get("content-length", "0")) > _MAX_BODY:
            return _error(413, "too_large", "The request is too large.")
        body = await request.body()
        try:
            objects = read_array_of_objects(body) if bulk else [read_object(body)]
        except RawJSONError as error:
            return _error(400, "bad_json", f"The body cannot be read: {error}.")
        if len(objects) > MAX_BULK_EVENTS:
            return _error(400, "too_many", "A request may carry at most 100 events.")
        return self._keep(objects, self._faults.settings.item_statuses if bulk else ())

    def _keep(self, objects: list[RawObject], item_statuses: Sequence[int]) -> Response:
        received = datetime.now(timezone.utc)
        events: list[TrackEvent] = []
        errors: list[dict[str, Any]] = []
        status = 400
        for index, found in enumerate(objects):
            try:
                events.append(accept(found, received))
            except EventRefusedError as error:
                status = max(status, error.status)
                errors.append({"index": index, "field": error.field, "error": error.problem})
        if errors:
            return _error(status, "invalid_event", "The request has events that are not valid.", errors)
        if self._faults.refuses([event.order_number for event in events]):
            # Which one it was is not told: the vendor does not document that it would be.
            return _error(400, "invalid_event", "The request is not valid.")
        settings = self._faults.settings
        ignored_emails = {email.lower() for email in settings.blacklist}
        statuses = [item_statuses[at % len(item_statuses)] if item_statuses else 200 for at in range(len(events))]
        taken = [event for event, status in zip(events, statuses, strict=True) if status < 400]
        kept = [event for event in taken if event.email.lower() not in ignored_emails]
        now_us = microseconds(received)
        self._store.add(
            kept,
            received_us=now_us,
            visible_us=[
                now_us + int((settings.ingest_delay + settings.ingest_spread * _share_of(event.track_id)) * 1_000_000)
                for event in kept
            ],
            ignored=len(taken) - len(kept),
        )
        return _per_item(events, statuses) if item_statuses else JSONResponse({})


def _per_item(events: Sequence[TrackEvent], statuses: Sequence[int]) -> Response:
    items: list[dict[str, Any]] = []
    for index, (event, status) in enumerate(zip(events, statuses, strict=True)):
        items.append({"index": index, "trackId": event.track_id, "status": status})
        if status >= 400:
            items[-1]["error"] = "The event is not valid."
    return JSONResponse(items, status_code=207)


class _Reading:
    """The reading side."""

    def __init__(self, store: EventStore, faults: Faults[ProfileStoreFaults]) -> None:
        self._store = store
        self._faults = faults

    def events(self, request: Request) -> Response:
        query = request.query_params
        try:
            conditions = parse_filter(query.get("$filter"), EVENT_FIELDS)
            order = parse_order(query.get("$orderBy"), EVENT_ORDER)
            wanted = parse_page(query.get("$skip"), query.get("$top"))
            settings = self._faults.settings
            total, rows = self._store.find(() if settings.ignores_filter else conditions, order, wanted, _now_us())
        except QueryError as error:
            return _error(400, "bad_query", str(error))
        except ValueError:
            return _error(400, "bad_query", "The filter compares with a time that is not ISO 8601.")
        return _json(_envelope([] if settings.empty_pages else [_event_item(row) for row in rows], total))

    def profiles(self, request: Request) -> Response:
        query = request.query_params
        try:
            conditions = parse_filter(query.get("$filter"), PROFILE_FIELDS)
            wanted = parse_page(query.get("$skip"), query.get("$top"))
        except QueryError as error:
            return _error(400, "bad_query", str(error))
        total, rows = self._store.profiles(conditions, wanted, _now_us())
        return _json(_envelope([json.dumps(_profile_item(row)) for row in rows], total))

    def profile(self, scope: str, profile_id: str) -> Response:
        conditions = [Condition("Scope", "eq", scope), Condition("ProfileId", "eq", profile_id)]
        _, rows = self._store.profiles(conditions, Page(top=1), _now_us())
        if not rows:
            return _error(404, "not_found", "There is no such profile in this scope.")
        return JSONResponse(_profile_item(rows[0]))

    def delete(self, scope: str, track_id: str) -> Response:
        if not self._store.delete(scope, track_id):
            return _error(404, "not_found", "There is no such event in this scope.")
        return Response(status_code=204)


def _share_of(track_id: str) -> float:
    """From 0 to 1, always the same for one event."""
    return random.Random(track_id).random()


def _now_us() -> int:
    return microseconds(datetime.now(timezone.utc))


def _json(text: str) -> Response:
    return Response(text.encode("utf-8"), media_type="application/json")


def _envelope(items: Sequence[str], total: int) -> str:
    return f'{{"items":[{",".join(items)}],"total":{total},"count":{len(items)}}}'


def _event_item(row: Row) -> str:
    front = {
        "TrackId": row["track_id"],
        "DeviceId": row["device_id"],
        "EventType": row["event_type"],
        "EventTime": row["event_time"],
        "Value": row["value"],
        "Scope": row["scope"],
        "User": {"Name": row["user_name"] or None, "Email": row["email"] or None},
    }
    # Written by hand, because the payload must keep its exact text.
    return f'{json.dumps(front)[:-1]}, "Payload": {row["payload"]}}}'


def _profile_item(row: Row) -> dict[str, Any]:
    return {
        "ProfileId": row["profile_id"],
        "Scope": row["scope"],
        "Name": row["user_name"] or None,
        "FirstSeen": row["first_seen"],
        "LastSeen": row["last_seen"],
        "Visits": row["visits"],
        "Info": {"Email": row["email"]},
    }


def profile_store_app(store: EventStore, key: str, faults: ProfileStoreFaults | None = None) -> ASGIApp:
    """Return both APIs over one store, open to callers who show the key."""
    trouble = Faults(faults or ProfileStoreFaults())
    gate = _Gate(key)
    tracking = _Tracking(store, trouble)
    reading = _Reading(store, trouble)
    service = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)

    @service.post(TRACK)
    async def track(request: Request) -> Response:
        return await tracking.take(request, bulk=False) if gate.admits(request) else _DENIED

    @service.post(TRACK_BULK)
    async def track_bulk(request: Request) -> Response:
        return await tracking.take(request, bulk=True) if gate.admits(request) else _DENIED

    @service.get(EVENTS)
    @service.get(EVENTS.rstrip("/"))
    async def track_events(request: Request) -> Response:
        return reading.events(request) if gate.admits(request) else _DENIED

    @service.get(PROFILES)
    async def profiles(request: Request) -> Response:
        return reading.profiles(request) if gate.admits(request) else _DENIED

    @service.get(PROFILE)
    async def profile(request: Request, scope: str, id: str) -> Response:
        return reading.profile(scope, id) if gate.admits(request) else _DENIED

    @service.delete(EVENTS_OF_ID)
    async def delete_events(request: Request, scope: str, id: str) -> Response:
        return reading.delete(scope, id) if gate.admits(request) else _DENIED

    _add_views(service, store)
    return with_sandbox_controls(
        service,
        faults=trouble,
        templates=(TRACK, TRACK_BULK, EVENTS, PROFILES, PROFILE, EVENTS_OF_ID),
        subjects=_order_numbers_of,
        state=store.totals,
    )


def _add_views(service: FastAPI, store: EventStore) -> None:
    @service.get("/sandbox/events")
    async def everything(request: Request) -> Response:
        try:
            after = int(request.query_params.get("after", "0"))
            limit = min(int(request.query_params.get("limit", "1000")), _MOST_EVENTS_TO_TESTS)
        except ValueError:
            return _error(400, "bad_query", "after and limit must be whole numbers.")
        rows = store.after(after, limit)
        items = [f'{{"id":{row["id"]},"received_us":{row["received_us"]},"event":{row["raw"]}}}' for row in rows]
        return _json(f"[{','.join(items)}]")

    @service.get("/")
    async def show() -> Response:
        return HTMLResponse(page.render(store, ""), headers=page.HEADERS)

    # The search is a POST, so that no email ends up in a URL, a history or a log.
    @service.post("/")
    async def search(request: Request) -> Response:
        form = parse_qs((await request.body()).decode("utf-8", "replace"))
        return HTMLResponse(page.render(store, form.get("q", [""])[0].strip()), headers=page.HEADERS)


def _order_numbers_of(scope: Scope, body: bytes) -> Sequence[str]:
    if not body:
        return ()
    try:
        objects = read_array_of_objects(body) if scope["path"] == TRACK_BULK else [read_object(body)]
    except RawJSONError:
        return ()
    return [order_number_of(found.members) for found in objects]


class ProfileStoreStandIn(StandIn):
    """The Profile Store in a thread of this process, for tests.

    state: the sqlite file, or None for memory. port: 0 picks a free one. store: what it remembers, in direct reach.
    """

    def __init__(
        self, key: str, state: Path | None = None, port: int = 0, faults: ProfileStoreFaults | None = None
    ) -> None:
        self.store = EventStore(state)
        super().__init__(profile_store_app(self.store, key, faults), port)

    def stop(self) -> None:
        """Stop serving, free the port and close the file."""
        super().stop()
        self.store.close()
