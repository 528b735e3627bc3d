"""The judge: what was published against what the stand-ins took down. The pipeline's own word decides nothing here.

The ledger is read for one purpose only: whether its numbers add up (design.md, invariant 2), and whether what must not
reach a profile is kept.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from zoneinfo import ZoneInfo

import simplejson
import sqlalchemy as sa

from sandbox.remote import NotReachableError
from sandbox.track_event import parse_time
from tests.faults.source import CARD, COLLISION, EITHER, MAIL, TWIN, Order
from tests.faults.totals import TOTALS
from tests.faults.world import UNDER_WAY, World

ON_THE_WAY = (
    "(select o.order_number, o.order_type, case when o.status = 'matched' then d.status else o.status end as status"
    " from orders o left join deliveries d on d.key = o.key and d.is_latest) as on_the_way"
)
"""Orders with how far they are, in SQL: those whose customer is known as far as their latest delivery."""

_CANARY = re.compile(rf"@{re.escape(MAIL)}|\b{CARD}\d{{8}}\b".encode())


@dataclass
class Verdict:
    """Orders by their ids, as sets.

    :param lost: published, must reach a profile, has not.
    :param missing: of these, those that no count, no quarantine and no waiting file tells of.
    :param wrong: reached it with another content than their source says; with the fields.
    :param duplicated: one edition reached it more than once.
    :param unexpected: reached a profile and must not have, or as somebody else's, or more often than was ordered.
    :param recovered: had not reached it at the last fault, and has since.
    """

    lost: set[str] = field(default_factory=set)
    missing: set[str] = field(default_factory=set)
    wrong: dict[str, list[str]] = field(default_factory=dict)
    duplicated: set[str] = field(default_factory=set)
    unexpected: set[str] = field(default_factory=set)
    recovered: set[str] = field(default_factory=set)
    delivered: set[str] = field(default_factory=set)


class Judge:
    """Judges one world, as often as wanted; every time over everything that world has ever published.

    Attributes:
        may_be_rejected: orders the Profile Store was told to refuse: they reach it or are ``rejected``, never both.
        may_double: orders whose request died without an answer under policy ``resend``; others may never double.
        truncated: orders so large that only their summary goes out.
        extra: fields that the source gives its orders and lines beside those of :class:`Order`.
        held: policy ``hold``: what is in doubt is held for a person.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._after = world.first_event
        self.taken: list[dict[str, Any]] = []
        self._places: list[int] = []  # of these, in the order in which the Profile Store took them down
        self._fit: set[int] = set()  # indexes into these; what has once been as published is not compared again
        self._logs_read: dict[str, int] = {}
        self._counted = 0
        self._pending_at_fault: set[str] = set()
        self._suppressed: dict[str, int] = {}  # card or email, and how much had been taken down when it was known
        self._ordered_again: dict[str, set[str]] = {}  # by resend run: which of the orders had been sent before it
        self._surely_again: Counter[str] = Counter()
        self._editions_of: Counter[str] = Counter()
        self.may_be_rejected: set[str] = set()
        self.may_double: set[str] = set()
        self.truncated: set[str] = set()
        self.extra: set[str] = set()
        self.held = False
        world.run_begins = self._note_resend
        world.customers_found = self._glance

    def look(self) -> Verdict:
        """What has become of the orders up to now."""
        world = self._world
        new = world.sandbox.events(self._after)
        if new:
            self._after = new[-1]["id"]
            self.taken += [each["event"] for each in new]
            self._places += [each["id"] for each in new]
        verdict = Verdict()
        seen: Counter[tuple[str, str]] = Counter()
        for index, event in enumerate(self.taken):
            number = str(event["payload"]["orderNumber"])
            if number.rpartition("-")[0] in world.sandbox.worlds - {world.source.name}:
                continue  # another world's, judged there
            order = self._id(number, event["eventType"] == "StoreReturn")
            if order not in world.published:
                verdict.unexpected.add(order)
                continue
            seen[order, event["trackId"]] += 1
            versions = world.published[order]
            if self._is_against_consent(index, versions[0]):
                verdict.unexpected.add(order)
            if index in self._fit:
                continue
            if not any(each.becomes in ("sent", EITHER) and event["user"]["email"] == each.email for each in versions):
                verdict.unexpected.add(order)
                continue
            wrong = [self._differences(each, event) for each in reversed(versions)]
            if all(wrong):
                verdict.wrong[order] = wrong[0]
            else:
                self._fit.add(index)
        editions = self._editions_of = Counter(order for order, _ in seen)
        expected = {order for order, versions in world.published.items() if versions[-1].becomes == "sent"}
        verdict.delivered = set(editions)
        verdict.lost = expected - self.may_be_rejected - verdict.delivered
        verdict.duplicated = {order for (order, _), times in seen.items() if times > 1}
        ordered = Counter(order for orders in self._ordered_again.values() for order in orders)
        verdict.unexpected |= {order for order, there in editions.items() if there > 1 + ordered[order]}
        verdict.recovered = self._pending_at_fault & verdict.delivered
        return verdict

    def _differences(self, order: Order, event: Mapping[str, Any]) -> list[str]:
        """The fields of an event that are not as its source says."""
        zone = str(self._world.settings.get("store_timezone", "UTC"))
        return [*_differences(order, event, zone, self.extra, whole=order.number not in self.truncated)]

    def _is_against_consent(self, index: int, order: Order) -> bool:
        """Whether an event was taken down after the suppression of its person was known, and nothing of it under way.

        No request leaves for a person whose suppression was committed before the order was marked as sending. This
        compares places in what the Profile Store took down, and no clocks.
        """
        hers = (order.card, str(self.taken[index]["user"]["email"]))
        known = [self._suppressed[each] for each in hers if each in self._suppressed]
        return bool(known) and self._places[index] > min(known)

    def _note_suppressed(self) -> None:
        """Remember of whom the ledger knows by now that nothing may be sent; only while no task is at work."""
        world = self._world
        rows: list[tuple[str, str, str]] = []
        with self._ledger() as ledger:
            if ledger is not None:
                rows = self._orders(ledger, "status", where="status = 'suppressed'")
        people = {order.card: order.email for order in map(self._first, (row[0] for row in rows)) if order}
        new = {each for pair in people.items() for each in pair if each} - self._suppressed.keys()
        if new:
            self._suppressed |= dict.fromkeys(new, int(world.sandbox.store.state()["events"]))

    def _glance(self) -> None:
        """The same in the middle of a run, where ledger or Profile Store may be away: then behind the next batch."""
        with contextlib.suppress(sa.exc.SQLAlchemyError, NotReachableError):
            self._note_suppressed()

    def _id(self, number: str, is_return: bool) -> str:
        twin = f"{number}{TWIN}"
        return twin if is_return and twin in self._world.published else number

    def _orders(self, ledger: sa.Connection, *columns: str, where: str = "1 = 1") -> list[tuple[Any, ...]]:
        """The ids of the ledger's orders, each with these columns."""
        query = f"select order_number, order_type, {', '.join(columns)} from {ON_THE_WAY} where {where}"
        return [(self._id(row[0], row[1] == "return"), *row[2:]) for row in ledger.execute(sa.text(query))]

    def _first(self, order: str) -> Order | None:
        versions = self._world.published.get(order)
        return versions[0] if versions else None

    def _note_resend(self, run: Mapping[str, Any]) -> None:
        """A run that sends a window's orders again begins: each that was sent gets one more event by it, no more."""
        if not run.get("params", {}).get("resend") or run["run_id"] in self._ordered_again:
            return
        start, end = (datetime.fromisoformat(run[name]) for name in ("start", "end"))
        with self._ledger() as ledger:
            known = self._orders(ledger, "status", where="status = 'sent'") if ledger is not None else []
        sent = {order for order, _ in known}
        again = {
            order
            for order in self.look().delivered
            if start - _EPOCH <= _moment(self._world.published[order][0].date, "UTC") < end - _EPOCH
        }
        self._ordered_again[run["run_id"]] = again
        self._surely_again.update(again & sent)

    def fault_happened(self) -> None:
        """Remember which orders have not reached their profile at this moment."""
        if not self._world.working:
            self._note_suppressed()
        self._pending_at_fault = self.look().lost

    def check(
        self,
        *,
        at_least: int,
        deliveries: int | None = None,
        dead_lettered: int | None = None,
        recovered: bool = False,
        settled: bool = True,
    ) -> Verdict:
        """Judge a world that has recovered.

        :param at_least: orders that must have been delivered, so that nothing passes by doing nothing.
        :param deliveries: how often a message may have been delivered again at most; default: as often as something
            crashed.
        :param dead_lettered: messages in the dead-letter queue; default: the malformed ones.
        :param recovered: whether the last fault must have held something up that has arrived since.
        :param settled: False where orders may still be under way.
        """
        world, verdict = self._world, self.look()
        TOTALS.orders += len(world.published) - self._counted
        self._counted = len(world.published)
        unexplained = verdict.duplicated - self.may_double
        if self.held:
            verdict.lost -= self._held_in_the_ledger()
        verdict.missing = verdict.lost - self._told_of()
        TOTALS.lost += len(verdict.lost) if settled else 0
        TOTALS.missing += len(verdict.missing)
        TOTALS.wrong += len(verdict.wrong)
        TOTALS.duplicated += len(unexplained)
        TOTALS.unexpected += len(verdict.unexpected)
        faults: list[str] = []
        for name, numbers in (
            ("lost", verdict.lost if settled else set()),
            ("missing", verdict.missing),
            ("duplicated", unexplained),
            ("unexpected", verdict.unexpected),
        ):
            if numbers:
                faults.append(f"{len(numbers)} {name}: {sorted(numbers)[:10]}")
        if verdict.wrong:
            some = "; ".join(f"{order}: {', '.join(fields)}" for order, fields in sorted(verdict.wrong.items())[:5])
            faults.append(f"{len(verdict.wrong)} wrong: {some}")
        if len(verdict.delivered) < at_least:
            faults.append(f"only {len(verdict.delivered)} of at least {at_least} orders were delivered at all")
        if recovered and not verdict.recovered:
            faults.append("the fault held nothing up: it proves nothing")
        faults += self._on_the_bus(deliveries, dead_lettered, settled)
        faults += self._in_the_ledger(settled, verdict)
        faults += self._editions(settled)
        faults += self._in_the_reports()
        faults += self._in_the_logs()
        assert not faults, "\n".join([*faults, "", str(world.timeline)])
        world.timeline.note(
            f"judged: {len(world.published)} published, {len(verdict.delivered)} delivered, "
            f"{len(verdict.recovered)} recovered, lost 0, wrong 0, unexpected 0, duplicated {len(verdict.duplicated)}"
        )
        if settled and not world.working:
            self._note_suppressed()
        return verdict

    def count(self, orders: int) -> None:
        """Orders that a test has judged by itself."""
        TOTALS.orders += orders

    def nothing_completed_that_is_not_on_disk(self) -> None:
        """Invariant 1, at any moment: what has left the bus is in the ledger."""
        world = self._world
        counts = world.sandbox.subscription(world.topic)
        left = world.sent_to_bus - counts["active"] - counts["locked"]
        on_bus = sum(world.on_bus.values())
        with self._ledger() as ledger:
            landed: set[str] = set()
            set_aside = 0
            if ledger is not None:
                landed = {order for order, _ in self._orders(ledger, "status")}
                set_aside = ledger.scalar(sa.text("select count(*) from quarantine where source = 'topic'")) or 0
        on_disk = sum(world.on_bus[order] for order in landed) + set_aside
        assert left <= on_disk, (
            f"{left} of {on_bus + len(world.malformed)} messages have left the bus, {on_disk} are on disk\n"
            f"{world.timeline}"
        )

    def _on_the_bus(self, deliveries: int | None, dead_lettered: int | None, settled: bool) -> list[str]:
        world = self._world
        counts = world.sandbox.subscription(world.topic)
        faults = []
        if settled and (counts["active"] or counts["locked"]):
            faults.append(f"the bus still holds {counts['active']} active and {counts['locked']} locked messages")
        most = world.crashes if deliveries is None else deliveries
        if counts["max_delivery_count_seen"] > most:
            faults.append(f"a message was delivered again {counts['max_delivery_count_seen']} times, at most {most}")
        wanted = len(world.malformed) if dead_lettered is None else dead_lettered
        if settled and counts["dead_lettered"] != wanted:
            faults.append(f"{counts['dead_lettered']} messages are dead letters, it should be {wanted}")
        return faults

    def _in_the_ledger(self, settled: bool, verdict: Verdict) -> list[str]:
        world, faults = self._world, []
        with self._ledger() as ledger:
            if ledger is None:
                return ["there is no ledger"]
            status = dict(self._orders(ledger, "status"))
            tallies = ledger.execute(sa.text("select run_id, received, duplicates, corrections from runs")).all()
            quarantined = ledger.execute(sa.text("select run, raw, reason from quarantine")).all()
            by_run = Counter(run for (run,) in ledger.execute(sa.text("select received_run from orders")))
            contents = self._contents(ledger)
        set_aside = Counter(run for run, *_ in quarantined)
        for run_id, received, duplicates, corrections in tallies:
            if received != by_run[run_id] + duplicates + corrections + set_aside[run_id]:
                faults.append(
                    f"run {run_id}: received {received} is not {by_run[run_id]} orders + {duplicates} duplicates + "
                    f"{corrections} corrections + {set_aside[run_id]} quarantined"
                )
        if settled and set(status) != set(world.published):
            wrong = set(status) ^ set(world.published)
            faults.append(f"{len(wrong)} orders are in the ledger or published, not both: {sorted(wrong)[:10]}")
        for order, versions in world.published.items():
            wanted = versions[-1].becomes
            if wanted == EITHER:
                wanted = "sent" if order in verdict.delivered else "suppressed"
            if order in self.may_be_rejected and order not in verdict.delivered:
                wanted = "rejected"
            if settled and status.get(order) != wanted and not (self.held and status.get(order) == "held"):
                faults.append(f"{order} is {status.get(order)} in the ledger, it should be {wanted}")
        raws = Counter(bytes(raw) for _, raw, _ in quarantined)
        missing = Counter(world.malformed) - raws
        # A malformed message without id that comes again is the same row; two equal bodies are two messages.
        if settled and missing:
            faults.append(f"{sum(missing.values())} malformed messages are not in quarantine with their bytes")
        apart = Counter(world.collisions) - Counter(bytes(raw) for _, raw, reason in quarantined if reason == COLLISION)
        if settled and apart:
            faults.append(f"{sum(apart.values())} collisions are not in quarantine with their bytes")
        red = {run for run, _, reason in quarantined if reason == COLLISION}
        green = [run for run in world.runs if run.green and run.ledger_id in red]
        faults += [f"run {run.ledger_id} found a collision and is green" for run in green]
        return [*faults, *(contents if settled else ())][:20]

    def _contents(self, ledger: sa.Connection) -> list[str]:
        """Of orders that were told with several contents: each is known, and the one that was sent is the order's."""
        world, faults = self._world, []
        several = {order: set(versions) for order, versions in world.published.items() if len(set(versions)) > 1}
        if not several:
            return []
        taken = {event["trackId"]: event for event in self.taken}
        ids: dict[str, str] = {}
        known: dict[str, dict[str, Any]] = defaultdict(dict)
        for number, order_type, key, fingerprint, payload in ledger.execute(
            sa.text("select order_number, order_type, key, fingerprint, payload from orders")
        ):
            ids[key] = self._id(number, order_type == "return")
            known[ids[key]][fingerprint] = json.loads(payload, parse_float=Decimal)
        for key, fingerprint, payload in ledger.execute(sa.text("select key, fingerprint, payload from contents")):
            known[ids[key]][fingerprint] = json.loads(payload, parse_float=Decimal)
        for order, versions in several.items():
            contents = known[order].values()
            if not all(any(self._is(version, each) for version in versions) for each in contents):
                faults.append(f"{order} has a content in the ledger that nobody published")
            if not all(any(self._is(version, each) for each in contents) for version in versions):
                faults.append(f"a content of {order} was published and is not in the ledger")
        for key, event_id, fingerprint in ledger.execute(
            sa.text("select key, event_id, fingerprint from deliveries where status = 'sent'")
        ):
            order = ids[key]
            if order not in several or event_id not in taken:
                continue
            carries, told = known[order].get(fingerprint, {}), taken[event_id]["payload"]
            if not any(self._is(version, carries) and self._is(version, told) for version in several[order]):
                faults.append(f"{order} was sent with another content than the ledger says")
        return faults

    def _is(self, order: Order, payload: Mapping[str, Any]) -> bool:
        return not [*_unlike(_document(order), payload, self.extra)]

    def _editions(self, settled: bool) -> list[str]:
        """A run that sends again n orders that were sent gives n events more; that it gives no more, ``look`` says."""
        if not (settled and self._surely_again):
            return []
        with self._ledger() as ledger:
            assert ledger is not None
            status = dict(self._orders(ledger, "status"))
        short = [
            order
            for order, times in self._surely_again.items()
            if self._editions_of[order] < 1 + times and status.get(order) == "sent"
        ]
        return [f"{len(short)} orders were not sent again as ordered: {sorted(short)[:10]}"] if short else []

    def _told_of(self) -> set[str]:
        """Orders of which a count or a list tells that they are not where they should be, or that they are due."""
        world, told = self._world, set()
        counts = world.sandbox.subscription(world.topic)
        if counts["active"] or counts["locked"] or counts["dead_lettered"]:
            told |= set(world.on_bus)
        with self._ledger() as ledger:
            if ledger is None:
                return told | set(world.published)
            states = (*UNDER_WAY, "held", "rejected")
            told |= {order for order, status in self._orders(ledger, "status") if status in states}
            loaded = set(ledger.scalars(sa.text("select path from extracts where state = 'loaded'")))
            raws = [bytes(raw) for raw in ledger.scalars(sa.text("select raw from quarantine"))]
        for name, orders in world.in_file.items():
            if name not in loaded:
                told |= orders
        return told | {order for order in world.published if any(order.encode() in raw for raw in raws)}

    def _held_in_the_ledger(self) -> set[str]:
        with self._ledger() as ledger:
            assert ledger is not None
            return {order for order, _ in self._orders(ledger, "status", where="status = 'held'")}

    def _in_the_reports(self) -> list[str]:
        sentences = [red for run in self._world.runs for red in (run.report or {}).get("red", ())]
        return [
            f"a report does not add up: {red}" for red in sentences if "received" in red or "no known status" in red
        ]

    def _in_the_logs(self) -> list[str]:
        keys = self._world.sandbox.keys
        secrets = [key.encode() for key in (keys.loyalty_api_key, keys.profile_store_key, keys.service_bus_key)]
        faults = []
        for path in sorted(each for each in self._world.logs.rglob("*.log") if each.is_file()):
            with path.open("rb") as file:
                file.seek(self._logs_read.get(str(path), 0))
                text = file.read()
            self._logs_read[str(path)] = self._logs_read.get(str(path), 0) + len(text)
            if found := _CANARY.search(text):
                faults.append(f"{path.name} shows an email or a card near byte {found.start()}")
            if any(key in text for key in secrets):
                faults.append(f"{path.name} shows a key")
        return faults[:5]

    def _ledger(self) -> LedgerLook:
        return LedgerLook(self._world.ledger)


class LedgerLook:
    """A look at the ledger's database by other means than the pipeline's."""

    def __init__(self, connection: dict[str, Any]) -> None:
        if connection["conn_type"] == "sqlite":
            url = sa.URL.create("sqlite", database=connection["host"])
        else:
            url = sa.URL.create(
                "postgresql+psycopg", connection.get("login"), connection.get("password"), connection.get("host"),
                connection.get("port"), connection.get("schema"), query=connection.get("extra") or {},
            )  # fmt: skip
        self._engine = sa.create_engine(url, poolclass=sa.NullPool)
        self._connection: sa.Connection | None = None

    def __enter__(self) -> sa.Connection | None:
        self._connection = None
        try:
            self._connection = self._engine.connect()
        except sa.exc.OperationalError:  # it is away, which is a fault like others
            return None
        return self._connection if sa.inspect(self._connection).has_table("orders") else None

    def __exit__(self, *_: object) -> None:
        if self._connection is not None:
            self._connection.close()
        self._engine.dispose()


def _document(order: Order) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(order.body())
    return document | {"orderType": "return" if order.total < 0 else "sale"}


def _differences(
    order: Order, event: Mapping[str, Any], zone: str, extra: Collection[str], *, whole: bool
) -> Iterator[str]:
    """The fields of an event that are not as its source says; of an order that is too large, those of its summary."""
    for name, value in (("eventType", order.event_type), ("value", order.event_type), ("scope", "Default")):
        if event.get(name) != value:
            yield name
    if _moment(str(event.get("eventTime")), "UTC") // _MILLISECOND != _moment(order.date, zone) // _MILLISECOND:
        yield "eventTime"
    document = _document(order)
    if not whole:
        document |= {"lineCount": None, "payloadTruncated": True}
        document["lineCount"] = len(document.pop("lines"))
    yield from _unlike(document, event["payload"], extra)


def _unlike(wanted: Any, found: Any, extra: Collection[str], name: str = "") -> Iterator[str]:
    """Where two documents differ, but for how they write a number, a moment or nothing."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for each in sorted(wanted.keys() | found.keys() - set(extra)):
            yield from _unlike(wanted.get(each), found.get(each), extra, f"{name}.{each}" if name else each)
    elif isinstance(wanted, list) and isinstance(found, list):
        if len(wanted) != len(found):
            yield f"{name}: {len(found)} instead of {len(wanted)}"
        for index, (one, other) in enumerate(zip(wanted, found, strict=False)):
            yield from _unlike(one, other, extra, f"{name}.{index}")
    elif (wanted is None or found is None) and wanted is not found:
        yield f"{name} is missing" if found is None else f"{name} is nothing of the source's"
    elif wanted is not None and not _same(name.rpartition(".")[2], wanted, found):
        yield name


def _same(field_: str, wanted: Any, found: Any) -> bool:
    if field_ in ("total", "quantity", "unitPrice", "lineCount"):
        return _number(wanted) == _number(found)
    if field_ == "date":
        return parse_time(wanted) == parse_time(found) and bool(_OFFSET.search(wanted)) == bool(_OFFSET.search(found))
    return bool(wanted == found)


def _moment(date: str, zone: str) -> timedelta:
    """Since 1970; of a date without an offset, in the zone."""
    moment = timedelta(microseconds=parse_time(date))
    if not _OFFSET.search(date):
        local = _EPOCH.replace(tzinfo=None) + moment
        moment = local.replace(tzinfo=ZoneInfo(zone)).astimezone(timezone.utc) - _EPOCH
    return moment


_OFFSET = re.compile(r"T.*(Z|[+-]\d\d:?\d\d)$")
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)


def _number(value: Any) -> Decimal:
    return Decimal(simplejson.dumps(value)) if not isinstance(value, str) else Decimal(value)
