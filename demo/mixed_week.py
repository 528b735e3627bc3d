"""The sample week with what real weeks hold beside it: what is published, and what must become of it.

    every fifth order with a card has an email of its own as well
    every hundredth is of a member who opted out, and has an email of its own; another order has her card alone
    returns under their sales' numbers
    corrections, before the order is sent and after
    a second store whose tills print the same numbers

Nothing of the product is imported: what is expected follows from what is published alone.
"""

from __future__ import annotations

import csv
import json
from collections import Counter
from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sandbox import week
from sandbox.week import SampleMessage

ORDER_KEY = "store_id,order_number"
"""What tells two stores' orders apart that bear one number."""
OTHER_STORE = "0999"
CORRECTED = "Corrected"
_OPTED_OUT = "77"

Key = tuple[str, str, str]
"""Store, number, and sale or return."""


@dataclass(frozen=True)
class Expected:
    """What must become of the two runs, and of each order: to whom it goes and under which store's name."""

    first: Mapping[str, int]
    second: Mapping[str, int]
    events: Mapping[Key, tuple[str, str]] = field(repr=False)


@dataclass(frozen=True)
class MixedWeek:
    """What is published before the first run, what corrects some of it before that, and what before the second."""

    before: list[dict[str, Any]]
    corrected: list[dict[str, Any]]
    between: list[dict[str, Any]]
    opted_out: frozenset[str]


def mixed_week() -> MixedWeek:
    """Make it of the sample week, the same every time; its extracts stay as they are."""
    in_extracts = {row["order_number"] for path in week.extracts() for row in week.read_extract(path)}
    before: list[dict[str, Any]] = []
    corrected: list[dict[str, Any]] = []
    between: list[dict[str, Any]] = []
    opted_out = set()
    for place, message in enumerate(week.messages()):
        order = json.loads(message.body)
        if order["orderNumber"] in in_extracts:
            before.append(order)
            continue
        if place % 5 == 0 and order["loyaltyCardNumber"] and not order["emailAddress"]:
            order["emailAddress"] = f"own{place}@example.com"
        if place % 100 == 1:
            card = f"{_OPTED_OUT}{place:014d}"
            opted_out.add(card)
            order |= {"loyaltyCardNumber": card, "emailAddress": f"opted.out{place}@example.com"}
            by_card_alone = {"orderNumber": f"{order['orderNumber']}9", "emailAddress": None}
            before.append({**order, **by_card_alone})
        before.append(order)
        if place % 50 == 2:
            before.append(_return_of(order))
        elif place % 50 == 3:
            corrected.append({**order, "storeName": CORRECTED})
        elif place % 50 == 4:
            between.append({**order, "storeName": CORRECTED})
        elif place % 50 == 5:
            before.append({**order, "storeId": OTHER_STORE, "storeName": "The other store"})
    return MixedWeek(before, corrected, between, frozenset(opted_out))


def as_messages(orders: Iterable[Mapping[str, Any]]) -> list[SampleMessage]:
    return [SampleMessage(json.dumps(order).encode(), order["orderNumber"], order["storeId"]) for order in orders]


def write_members(path: Path, mixed: MixedWeek) -> None:
    """The week's members, and those who opted out."""
    text = week.MEMBERS.read_text(encoding="utf-8")
    rows = [f"{card},by.card{n}@example.com,O,Out,opted_out\n" for n, card in enumerate(sorted(mixed.opted_out))]
    path.write_text(text.rstrip("\n") + "\n" + "".join(rows), encoding="utf-8")


def expected(mixed: MixedWeek) -> Expected:
    """What must become of it, by the rules of the contracts."""
    emails, shut = _emails(), _shut()
    from_files = [_of_row(row) for path in week.extracts() for row in _first_rows(path)]
    known: dict[Key, dict[str, Any]] = {}
    tally = Counter[str]()
    for order in [*from_files, *mixed.before, *mixed.corrected]:
        key = _key(order)
        tally["received"] += 1
        if key not in known:
            tally["orders"] += 1
        else:
            tally["duplicates" if order["storeName"] == known[key]["storeName"] else "corrections"] += 1
        known[key] = order
    events = {}
    for key, order in known.items():
        became, email = _becomes(order, mixed.opted_out, emails, shut)
        tally[became] += 1
        if became == "sent":
            events[key] = email, order["storeName"]
    after = [order for order in mixed.between if _key(order) in events]
    second = {"received": len(mixed.between), "corrections": len(mixed.between), "corrected_after_sent": len(after)}
    names = ("received", "orders", "duplicates", "corrections", "sent", "unmatched", "suppressed")
    return Expected({name: tally[name] for name in names}, {**second, "sent": 0, "collisions": 0}, events)


def faults_in(
    wanted: Expected, first: Mapping[str, Any], second: Mapping[str, Any], events: Iterable[Any]
) -> list[str]:
    """Where the runs' counts or the Profile Store's own record are not what was expected."""
    faults = [
        f"the {name} run's {count} is {counts.get(count)}, not {value}"
        for name, counts, those in (("first", first, wanted.first), ("second", second, wanted.second))
        for count, value in those.items()
        if counts.get(count) != value
    ]
    there: dict[Key, list[tuple[str, str]]] = {}
    for event in events:
        kind = "return" if event["eventType"] == "StoreReturn" else "sale"
        payload = event["payload"]
        key = payload["storeId"], payload["orderNumber"], kind
        there.setdefault(key, []).append((event["user"]["email"], payload["storeName"]))
    kinds = {
        "missing": wanted.events.keys() - there.keys(),
        "unexpected": there.keys() - wanted.events.keys(),
        "there twice": {key for key, found in there.items() if len(found) > 1},
        "wrong": {key for key, found in there.items() if key in wanted.events and found[0] != wanted.events[key]},
    }
    return faults + [f"{len(keys)} orders are {what}: {sorted(keys)[:3]}" for what, keys in kinds.items() if keys]


def _return_of(order: Mapping[str, Any]) -> dict[str, Any]:
    given_back = deepcopy(dict(order))
    given_back |= {"orderType": "return", "total": f"-{order['total']}".replace("--", "")}
    return given_back


def _key(order: Mapping[str, Any]) -> Key:
    return order["storeId"], order["orderNumber"], order.get("orderType", "sale")


def _emails() -> dict[str, str]:
    """Card to email of the members an event can be sent for."""
    matched = week.matched_cards()
    with week.MEMBERS.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        return {row["loyaltyCardNumber"]: row["email"] for row in rows if row["loyaltyCardNumber"] in matched}


def _shut() -> set[str]:
    """Cards of members who are not active: an order's own email does not count beside one."""
    with week.MEMBERS.open(newline="", encoding="utf-8") as file:
        return {row["loyaltyCardNumber"] for row in csv.DictReader(file) if row["status"] != "active"}


def _becomes(
    order: Mapping[str, Any], opted_out: frozenset[str], emails: Mapping[str, str], shut: set[str]
) -> tuple[str, str]:
    card, own = order["loyaltyCardNumber"], order["emailAddress"]
    if card in opted_out:
        return "suppressed", ""
    email = emails.get(card or "") or ("" if card in shut else own or "")
    return ("sent", email) if email else ("unmatched", "")


def _first_rows(path: Path) -> Iterable[dict[str, str]]:
    return {row["order_number"]: row for row in reversed(week.read_extract(path))}.values()


def _of_row(row: Mapping[str, str]) -> dict[str, Any]:
    return {
        "orderNumber": row["order_number"],
        "storeId": row["store_id"],
        "storeName": row["store_name"],
        "loyaltyCardNumber": row["loyalty_card"] or None,
        "emailAddress": row["email"] or None,
    }
