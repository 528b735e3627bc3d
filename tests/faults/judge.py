"""The judge: what was published against what the stand-ins took down. The pipeline's own word decides nothing here.

The ledger is read for one purpose only: whether its numbers add up (design.md, invariant 2), and whether what must not
reach a profile is kept.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import simplejson
import sqlalchemy as sa

from tests.faults.source import CARD, MAIL, Order
from tests.faults.totals import TOTALS
from tests.faults.world import World

ON_THE_WAY = (
    "(select o.order_number, o.claim_run, case when o.status = 'matched' then d.status else o.status end as status"
    " from orders o left join deliveries d on d.key = o.key and d.is_latest) as on_the_way"
)
"""Orders with how far they are, in SQL: those whose customer is known as far as their latest delivery."""

_CANARY = re.compile(rf"@{re.escape(MAIL)}|\b{CARD}\d{{8}}\b".encode())


@dataclass
class Verdict:
    """Order numbers, as sets.

    :param lost: published, must reach a profile, has not.
    :param duplicated: reached it more than once.
    :param unexpected: reached a profile and must not have, or as somebody else's, or with other content.
    :param recovered: had not reached it at the last fault, and has since.
    """

    lost: set[str] = field(default_factory=set)
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
        held: policy ``hold``: what is in doubt is held for a person.
    """

    def __init__(self, world: World) -> None:
        self._world = world
        self._after = world.first_event
        self.taken: list[dict[str, Any]] = []
        self._fit: set[int] = set()  # indexes into these; what has once been as published is not compared again
        self._logs_read: dict[str, int] = {}
        self._counted = 0
        self._pending_at_fault: set[str] = set()
        self.may_be_rejected: set[str] = set()
        self.may_double: set[str] = set()
        self.truncated: set[str] = set()
        self.held = False

    def look(self) -> Verdict:
        """What has become of the orders up to now."""
        world = self._world
        new = world.sandbox.events(self._after)
        if new:
            self._after = new[-1]["id"]
            self.taken += [each["event"] for each in new]
        verdict = Verdict()
        seen: Counter[str] = Counter()
        track_ids: dict[str, set[str]] = {}
        for index, event in enumerate(self.taken):
            number = str(event["payload"]["orderNumber"])
            if number.rpartition("-")[0] in world.sandbox.worlds - {world.source.name}:
                continue  # another world's, judged there
            if number not in world.published:
                verdict.unexpected.add(number)
                continue
            seen[number] += 1
            track_ids.setdefault(number, set()).add(event["trackId"])
            if index in self._fit:
                continue
            whole = number not in self.truncated
            if any(_fits(order, event, whole=whole) for order in world.published[number]):
                self._fit.add(index)
            else:
                verdict.unexpected.add(number)
        expected = {number for number, versions in world.published.items() if versions[-1].becomes == "sent"}
        verdict.delivered = set(seen)
        verdict.lost = expected - self.may_be_rejected - verdict.delivered
        verdict.duplicated = {number for number, times in seen.items() if times > 1}
        verdict.unexpected |= {number for number, ids in track_ids.items() if len(ids) > 1}
        verdict.recovered = self._pending_at_fault & verdict.delivered
        return verdict

    def fault_happened(self) -> None:
        """Remember which orders have not reached their profile at this moment."""
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
        TOTALS.lost += len(verdict.lost)
        TOTALS.duplicated += len(unexplained)
        TOTALS.unexpected += len(verdict.unexpected)
        faults: list[str] = []
        for name, numbers in (
            ("lost", verdict.lost if settled else set()),
            ("duplicated", unexplained),
            ("unexpected", verdict.unexpected),
        ):
            if numbers:
                faults.append(f"{len(numbers)} {name}: {sorted(numbers)[:10]}")
        if len(verdict.delivered) < at_least:
            faults.append(f"only {len(verdict.delivered)} of at least {at_least} orders were delivered at all")
        if recovered and not verdict.recovered:
            faults.append("the fault held nothing up: it proves nothing")
        faults += self._on_the_bus(deliveries, dead_lettered, settled)
        faults += self._in_the_ledger(settled, verdict)
        faults += self._in_the_reports()
        faults += self._in_the_logs()
        assert not faults, "\n".join([*faults, "", str(world.timeline)])
        world.timeline.note(
            f"judged: {len(world.published)} published, {len(verdict.delivered)} delivered, "
            f"{len(verdict.recovered)} recovered, lost 0, unexpected 0, duplicated {len(verdict.duplicated)}"
        )
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
                landed = set(ledger.scalars(sa.text("select order_number from orders")))
                set_aside = ledger.scalar(sa.text("select count(*) from quarantine where source = 'topic'")) or 0
        on_disk = sum(world.on_bus[number] for number in landed) + set_aside
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
            rows = ledger.execute(sa.text(f"select order_number, status, claim_run from {ON_THE_WAY}")).all()
            status = {number: state for number, state, _ in rows}
            tallies = ledger.execute(sa.text("select run_id, received, duplicates, corrections from runs")).all()
            quarantined = ledger.execute(sa.text("select run, raw from quarantine")).all()
            by_run = Counter(run for (run,) in ledger.execute(sa.text("select received_run from orders")))
        set_aside = Counter(run for run, _ in quarantined)
        for run_id, received, duplicates, corrections in tallies:
            if received != by_run[run_id] + duplicates + corrections + set_aside[run_id]:
                faults.append(
                    f"run {run_id}: received {received} is not {by_run[run_id]} orders + {duplicates} duplicates + "
                    f"{corrections} corrections + {set_aside[run_id]} quarantined"
                )
        if settled and set(status) != set(world.published):
            wrong = set(status) ^ set(world.published)
            faults.append(f"{len(wrong)} orders are in the ledger or published, not both: {sorted(wrong)[:10]}")
        for number, versions in world.published.items():
            wanted = versions[-1].becomes
            if number in self.may_be_rejected and number not in verdict.delivered:
                wanted = "rejected"
            if settled and status.get(number) != wanted and not (self.held and status.get(number) == "held"):
                faults.append(f"{number} is {status.get(number)} in the ledger, it should be {wanted}")
        raws = Counter(bytes(raw) for _, raw in quarantined)
        missing = Counter(world.malformed) - raws
        # A malformed message without id that comes again is the same row; two equal bodies are two messages.
        if settled and missing:
            faults.append(f"{sum(missing.values())} malformed messages are not in quarantine with their bytes")
        return faults[:20]

    def _held_in_the_ledger(self) -> set[str]:
        with self._ledger() as ledger:
            assert ledger is not None
            return set(ledger.scalars(sa.text(f"select order_number from {ON_THE_WAY} where status = 'held'")))

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

    def __enter__(self) -> sa.Connection | None:
        self._connection = self._engine.connect()
        if sa.inspect(self._connection).has_table("orders"):
            return self._connection
        return None

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        self._engine.dispose()


def _fits(order: Order, event: dict[str, Any], *, whole: bool) -> bool:
    """Whether an event is what must be told of an order, and to whom; of one that is too large, its summary."""
    payload = event["payload"]
    return (
        order.becomes == "sent"
        and event["user"]["email"] == order.email
        and event["eventType"] == order.event_type
        and _number(payload["total"]) == order.total
        and (_lines_fit(order, payload) if whole else payload.get("payloadTruncated") is True)
    )


def _lines_fit(order: Order, payload: dict[str, Any]) -> bool:
    return len(payload["lines"]) == len(order.lines) and (
        all(
            _number(line["total"]) == total and line["description"] == description
            for line, (_, description, _, _, total) in zip(payload["lines"], order.lines, strict=True)
        )
    )


def _number(value: Any) -> Decimal:
    return Decimal(simplejson.dumps(value)) if not isinstance(value, str) else Decimal(value)


def numbers(orders: Iterable[Order]) -> set[str]:
    """Their order numbers."""
    return {order.number for order in orders}
