"""A second destination: each bulk is one object of JSON lines below an object storage path."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import simplejson
from airflow.sdk import ObjectStoragePath

from include.instore.ledger.deliveries import OutgoingOrder


@dataclass(frozen=True)
class Written:
    """What became of one event: there, once its object is."""

    track_id: str
    state: str = "accepted"
    status_code: int | None = None
    detail: str = ""
    retry_after: float | None = None


class Archive:
    """Orders as they are, with whose they are: nothing of the Profile Store's event.

    :param url: of a folder, such as ``file:///tmp/archive`` or ``abfs://archive/orders``.
    """

    bulk_events = 1000
    reads_back = True

    def __init__(self, url: str) -> None:
        self._folder = ObjectStoragePath(url)

    def event(self, order: OutgoingOrder) -> tuple[dict[str, Any], bool]:
        document = simplejson.loads(order.payload, use_decimal=True)
        return {"trackId": order.event_id, "customer": order.email, "order": document}, False

    def send_events(self, events: Sequence[Mapping[str, Any]], before_leaving: Callable[[], None]) -> Iterator[Written]:
        before_leaving()
        lines = "".join(simplejson.dumps(event, use_decimal=True) + "\n" for event in events)
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / f"{events[0]['trackId']}.jsonl").write_text(lines)
        for event in events:
            yield Written(str(event["trackId"]))

    def look_for(self, event_ids: Iterable[str]) -> dict[str, str]:
        there = {event["trackId"] for event in self.events()}
        return {each: "shown" if each in there else "absent" for each in event_ids}

    def events(self) -> list[dict[str, Any]]:
        """What is there, one a line."""
        if not self._folder.exists():
            return []
        objects = sorted(self._folder.iterdir(), key=str)
        return [simplejson.loads(line, use_decimal=True) for each in objects for line in each.read_text().splitlines()]
