"""
The Profile Store: events are written through the Tracking API and read back through the Profile Store API.

What is known of both, and what had to be assumed, is in contracts.md sections 2 and 3; the rules for answers here
are those. Ingest is asynchronous, and events of blacklisted people are accepted and never show: an event that cannot
be read back is not proof that it was not taken.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import quote

from instore_provider.auth import HeaderAuth
from instore_provider.connections import ProfileStoreFields
from instore_provider.errors import ConfigurationError, ProviderError, said_of_this_connection
from instore_provider.events import EncodedEvent, EventOutcome, bulk_body, cut_into_bulks, encode
from instore_provider.hooks.base import ServiceHook
from instore_provider.http import ASKS_FOR_PATIENCE, LeftAlone, NoAnswer, Result, RetryBounds, Service
from instore_provider.rate_limit import rate_limit_of
from instore_provider.redaction import leaf_texts
from instore_provider.taken import read_answer

if TYPE_CHECKING:
    import requests

    from instore_provider.http import Answer

__all__ = ["LARGEST_BULK", "Looked", "ProfileStoreHook"]

LARGEST_BULK = 100
LAST_READABLE = 10_000

Looked = Literal["shown", "absent", "ignored_filter", "empty_pages"]
"""What the Profile Store API says of one event; see `look_for_events`."""

_TRACK = "/api/v1.0/Track"
_TRACK_BULK = "/api/v1.0/TrackBulk"
_EVENTS = "/api/v1.0/trackevents/"

_WRONG_PLACE = frozenset({402, 404, 405, 407, 410, 415, 421, 426, 431})
"""These 4xx are about the address or the account, whichever the event: bisecting would refuse every single one."""

_AMBIGUOUS_IN_A_ROW = 3
_SUSPECTS = 3
"""So many events one after the other that the service says it did not take, and none before that it did: it is ill."""
_SERVER_ERROR = 500
_READ_THREADS = 4
_ASKABLE_TRACK_ID = re.compile(r"[A-Za-z0-9_.:-]{1,256}")


class ProfileStoreHook(ServiceHook[ProfileStoreFields, tuple[Service, Service | None, str, frozenset[int]]]):
    """
    Send tracking events to the Profile Store and read them back.

    The fields of its connection are `instore_provider.connections.ProfileStoreFields`.

    :param profile_store_conn_id: id of the connection.
    :param calling: how both APIs are called, as `ServiceHook` takes it.
    """

    conn_name_attr = "profile_store_conn_id"
    default_conn_name = "profile_store_default"
    conn_type = "profile_store"
    hook_name = "Profile Store"
    fields = ProfileStoreFields

    def __init__(self, profile_store_conn_id: str = default_conn_name, **calling: Any) -> None:
        super().__init__(profile_store_conn_id, **calling)
        self.profile_store_conn_id = profile_store_conn_id

    def get_conn(self) -> requests.Session:
        """Return the session of the Tracking API, with its credentials."""
        return self._load()[0].session

    def send_events(
        self,
        events: Sequence[Mapping[str, Any]],
        *,
        bulk_size: int = LARGEST_BULK,
        max_bulk_bytes: int = 1_000_000,
        before_request: Callable[[Sequence[int]], None] | None = None,
        before_leaving: Callable[[], object] = lambda: None,
    ) -> Iterator[EventOutcome]:
        """
        Send events, and tell what became of each: exactly one outcome per event.

        Lazy: a bulk leaves only when the outcomes of those before it have been taken, so they are recorded even if
        a later one raises. An event without an outcome when this raises was not taken.

        :param events: bodies of Track, camelCase; Decimals go out as JSON numbers with their exact digits.
        :param bulk_size: events per request at most, and 100 at most; 1 sends each by itself, to Track.
        :param max_bulk_bytes: bytes of body per request at most.
        :param before_request: called with the indexes of a bulk before it leaves, once per bulk, such as to commit
            that they are about to be sent. It is not called again when a bulk is retried or cut.
        :param before_leaving: called right before every single request, after any waiting for a turn; when it raises,
            the request does not leave.
        :raises ConfigurationError: the key is refused, the URL is wrong, or TLS cannot be verified.
        """
        if not 1 <= bulk_size <= LARGEST_BULK:
            raise ConfigurationError(f"bulk_size must be from 1 to {LARGEST_BULK}, so correct it.")
        service, _, success_body, untaken = self._load()
        encoded: list[EncodedEvent] = []
        for index, event in enumerate(events):
            item = encode(index, event)
            if isinstance(item, EventOutcome):
                yield item
            else:
                encoded.append(item)

        bulk = bulk_size > 1
        path = _TRACK_BULK if bulk else _TRACK
        bulks = cut_into_bulks(encoded, bulk_size, max_bulk_bytes)
        answers = _Answers(service, success_body, untaken, events)
        for parts in ([each] for each in bulks):
            if before_request is not None:
                before_request([event.index for event in parts[0]])
            while parts:
                part = parts.pop()
                body = bulk_body(part) if bulk else part[0].body
                result, attempts = self._write(service, path, body, untaken, before_leaving)
                yield from answers.read(part, result, attempts)
                if answers.halve:
                    parts += _halves(part)
                if answers.stop:
                    yield from _not_tried(parts, bulks, service.name, answers.retry_after)
                    return
        yield from answers.suspects or ()

    @property
    def reads_back(self) -> bool:
        """Whether the connection names a Profile Store API to read events back from."""
        return self._load()[1] is not None

    def look_for_events(self, track_ids: Iterable[str]) -> dict[str, Looked]:
        """
        Ask whether the Profile Store shows these events: track id to `shown` or `absent`; or, where the
        API does not do what the filter says, `ignored_filter`, an answer with other events than asked for, or
        `empty_pages`, one with none although it counts some.

        One query per id, four at a time. An event that is absent may still be on its way.

        :raises ServiceUnavailable: the API cannot be asked now.
        :raises ConfigurationError: it cannot be asked at all, or an id cannot stand in a filter.
        """
        service = self._reading()
        ids = list(dict.fromkeys(track_ids))
        if not all(_ASKABLE_TRACK_ID.fullmatch(each) for each in ids):
            raise ConfigurationError("A trackId must be of letters, digits and -_.: to be asked for, so give it such.")
        if not ids:
            return {}
        with ThreadPoolExecutor(min(_READ_THREADS, len(ids)), thread_name_prefix="look-for-events") as pool:
            asked = {each: pool.submit(self._look_for, service, each) for each in ids}
            try:
                wait(asked.values(), return_when=FIRST_EXCEPTION)
            finally:
                pool.shutdown(wait=False, cancel_futures=True)  # the others would fail one after the other
        for failed in (each for each in asked.values() if not each.cancelled() and each.exception()):
            failed.result()
        return {each: looked.result() for each, looked in asked.items()}

    def query_events(
        self, filter: str | None = None, skip: int = 0, top: int = 100, order_by: str | None = None
    ) -> list[dict[str, Any]]:
        """
        Return stored events, in PascalCase as the API answers, their numbers as exact Decimals.

        :param filter: such as `User.Email eq a@example.com and EventTime ge 2018-12-03`, values unquoted.
        :param skip: events to leave out from the start.
        :param top: events to return at most; skip and top together stay under 10,000.
        :param order_by: such as `EventTime desc`.
        :raises ServiceUnavailable: the API cannot be asked now.
        :raises ConfigurationError: it cannot be asked at all, or it refuses the query.
        """
        if skip < 0 or top < 1 or skip + top >= LAST_READABLE:
            raise ConfigurationError(f"skip + top must stay under {LAST_READABLE}, so narrow the filter.")
        return self._query(self._reading(), filter, skip, top, order_by, self._bounds)[0]

    def test_connection(self) -> tuple[bool, str]:
        """Ask both services, once each: the Tracking API with an empty bulk, the Profile Store API for one event."""
        once = RetryBounds(attempts=1)
        try:
            tracking, reading, *_ = self._load()
            answer = tracking.call("POST", _TRACK_BULK, b"[]")
            if isinstance(answer, NoAnswer) or answer.status >= 500 or answer.status in ASKS_FOR_PATIENCE:
                raise tracking.unavailable(answer, 1)
            self._check_place(tracking, answer.status)
            if reading is None:
                return True, (
                    "The Tracking API takes the key (an empty bulk was sent). The Profile Store API was not asked, "
                    "because read_host is empty: events cannot be read back."
                )
            self._query(reading, None, 0, 1, None, once)
        except ProviderError as error:
            return False, said_of_this_connection(error, self.profile_store_conn_id)
        return (
            True,
            "The Tracking API takes the key (an empty bulk was sent), and the Profile Store API answers queries.",
        )

    def _write(
        self,
        service: Service,
        path: str,
        body: bytes,
        untaken: frozenset[int],
        before_leaving: Callable[[], object],
    ) -> tuple[Any, int]:
        result, attempts = service.retried(
            lambda: service.call("POST", path, body, before_leaving=before_leaving),
            lambda result: _certainly_untaken(result, untaken),
            self._bounds,
        )
        if result.status is not None:
            self._check_place(service, result.status)
        return result, attempts

    def _check_place(self, service: Service, status: int) -> None:
        service.check_door(status)
        if status in _WRONG_PLACE:
            raise service.error(
                "host", f"leads to {status}, so put the base URL of {service.name} into it, without its path"
            )

    def _look_for(self, service: Service, track_id: str) -> Looked:
        items, total = self._query(service, f"TrackId eq {track_id}", 0, 1, None, self._bounds)
        if any(str(item.get("TrackId", "")).casefold() == track_id.casefold() for item in items):
            return "shown"
        if items:
            return "ignored_filter"
        return "absent" if total == 0 else "empty_pages"

    def _query(
        self, service: Service, filter: str | None, skip: int, top: int, order_by: str | None, bounds: RetryBounds
    ) -> tuple[list[dict[str, Any]], Any]:
        """Return the items of the page, and how many the API counts in all."""
        query = f"?$skip={skip}&$top={top}"
        if filter:
            query += f"&$filter={quote(filter, safe='')}"
        if order_by:
            query += f"&$orderBy={quote(order_by, safe='')}"
        answer: Answer = service.read("GET", _EVENTS + query, None, bounds)
        service.check_door(answer.status)
        if not answer.taken:
            raise service.error(
                "read_host",
                f"leads to {service.name}, which refused the query ({answer.status}), so correct the base URL or "
                "the filter",
            )
        found = answer.json
        items = found.get("items") if isinstance(found, dict) else None
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise service.error("read_host", "leads to something other than the Profile Store API, so correct it")
        return items, found.get("total")

    def _reading(self) -> Service:
        reading = self._load()[1]
        if reading is None:
            raise ConfigurationError(
                f"Connection {self.profile_store_conn_id!r}: its field 'read_host' is empty, so put the base URL of "
                "the Profile Store API into it, with its key in 'read_api_key'."
            )
        return reading

    def _loaded_from(self, fields: ProfileStoreFields) -> tuple[Service, Service | None, str, frozenset[int]]:
        take_turn = rate_limit_of(self._conn_id, fields.host, fields.rate_limit, self.limiter)

        def service(name: str, url_field: str, key_field: str) -> Service:
            url, key = getattr(fields, url_field), getattr(fields, key_field)
            auth, breaker = HeaderAuth(fields.header(key)), self._breaker_of(name)
            return self._service(
                fields, name, url, auth, take_turn, url_field=url_field, key_field=key_field, key=key, breaker=breaker
            )

        tracking = service("the Tracking API", "host", "password")
        reading = service("the Profile Store API", "read_host", "read_api_key") if fields.read_host else None
        return tracking, reading, fields.success_body, fields.untaken_statuses


class _Answers:
    """
    What the answers to one list of events say so far: of the events, and of the service, which may be ill.

    :ivar halve: the latest answer is about one of several events, so its bulk is sent again in halves.
    :ivar stop: the service is not well, so nothing more is sent; `retry_after` is what it asked to wait.
    :ivar suspects: events that the service says it did not take, as long as it has taken none; then None.
    """

    def __init__(
        self, service: Service, success_body: str, untaken: frozenset[int], events: Sequence[Mapping[str, Any]]
    ) -> None:
        self._service, self._success_body, self._untaken, self._events = service, success_body, untaken, events
        self._ambiguous_in_a_row = 0
        self.suspects: list[EventOutcome] | None = []
        self.halve = self.stop = False
        self.retry_after: float | None = None

    def read(self, part: list[EncodedEvent], result: Any, attempts: int) -> Iterator[EventOutcome]:
        """Yield what is known after one answer. :raises ConfigurationError: nobody can read its text."""
        status, self.halve = result.status, False
        taken = read_answer(result.body, part, self._success_body, status) if status and 200 <= status <= 299 else None
        if taken is not None and taken.state in ("accepted", "by_item"):
            self._ambiguous_in_a_row = 0
            yield from self.suspects or ()
            self.suspects = None
            yield from _by_item(part, status, taken.statuses, self._untaken)
        elif taken is not None and taken.state == "failed":
            yield from self._failed(part, status)
        elif _certainly_untaken(result, self._untaken):
            self.stop, self.retry_after = True, result.retry_after
            told = f"{self._service.name} {result.told()}"
            if not isinstance(result, LeftAlone):
                told += f" in {attempts} attempt(s)"
            yield from _outcomes(part, "unsent", status, told, result.retry_after)
        elif taken is not None or status is None or status >= 500 or status in ASKS_FOR_PATIENCE:
            self._ambiguous_in_a_row += 1
            yield from _outcomes(part, "ambiguous", status, f"{self._service.name} {result.told()}")
            if taken is not None and not _is_page(result) and self.suspects is not None:
                raise self._service.error(
                    "success_body",
                    f"must have the text with which {self._service.name} says that it took events, with * for any "
                    f"characters; it answered {status} with something else, and whether it took these is asked",
                )
            if self._ambiguous_in_a_row >= _AMBIGUOUS_IN_A_ROW:
                self.stop, self.retry_after = True, result.retry_after
        else:
            self._ambiguous_in_a_row = 0
            self.halve = len(part) > 1
            if not self.halve:
                detail = self._service.detail(result, _private_texts(self._events[part[0].index]))
                yield from _outcomes(part, "refused", status, detail)

    def _failed(self, part: list[EncodedEvent], status: int) -> Iterator[EventOutcome]:
        """The service answers with success and says in it that the part was not taken."""
        refused = _outcomes(part, "refused", status, f"{self._service.name} answered {status} and says that it failed")
        self.halve = len(part) > 1
        if self.halve:
            return
        if self.suspects is None:
            yield from refused
            return
        self.suspects += refused
        if len(self.suspects) >= _SUSPECTS:
            self.stop = True
            yield from [replace(each, state="unsent") for each in self.suspects]


def _certainly_untaken(result: Result, untaken: frozenset[int]) -> bool:
    return not result.left if isinstance(result, NoAnswer) else result.status in untaken


def _is_page(answer: Answer) -> bool:
    """Whether something in between answered, such as a gateway's sign-in page: the service's 2xx is JSON or empty."""
    return answer.body.lstrip()[:1] == b"<"


def _private_texts(event: Mapping[str, Any]) -> set[str]:
    """Return the values of an event that no message may repeat; the constants of the event are not among them."""
    return {text for part in ("user", "payload") for text in leaf_texts(event.get(part))}


def _outcomes(
    part: Sequence[EncodedEvent], state: Any, status: int | None, detail: str = "", retry_after: float | None = None
) -> list[EventOutcome]:
    return [EventOutcome(event.index, event.track_id, state, status, detail, retry_after) for event in part]


def _halves(part: list[EncodedEvent]) -> list[list[EncodedEvent]]:
    """The second half and the first, which is popped first."""
    middle = len(part) // 2
    return [part[middle:], part[:middle]]


def _by_item(
    part: Sequence[EncodedEvent], status: int, statuses: Mapping[int, int], untaken: frozenset[int]
) -> list[EventOutcome]:
    """The outcomes where the answer has a status for each event: what passes may be sent again."""
    found = []
    for at, event in enumerate(part):
        if at not in statuses:
            found += _outcomes([event], "accepted", status)
        elif statuses[at] in untaken:
            found += _outcomes([event], "unsent", statuses[at], f"answered {statuses[at]} for this event")
        elif statuses[at] >= _SERVER_ERROR or statuses[at] in ASKS_FOR_PATIENCE:
            found += _outcomes([event], "ambiguous", statuses[at], f"answered {statuses[at]} for this event")
        else:
            found += _outcomes([event], "refused", statuses[at] or status, "the answer says that it was not taken")
    return found


def _not_tried(
    parts: Sequence[list[EncodedEvent]],
    bulks: Iterator[list[EncodedEvent]],
    name: str,
    retry_after: float | None,
) -> Iterator[EventOutcome]:
    """Yield what is left as unsent, when the service turned out to be down."""
    for rest in chain(reversed(parts), bulks):
        yield from _outcomes(rest, "unsent", None, f"not tried, since {name} is not well", retry_after)
