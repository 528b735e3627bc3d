"""Family 8: whatever arrives is sent, or unmatched, or in quarantine with its bytes; nothing falls between."""

from __future__ import annotations

import csv
import gzip
import io
import json
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.faults.conftest import MakeWorld, in_smoke
from tests.faults.judge import ON_THE_WAY, Judge, LedgerLook
from tests.faults.source import HEADER, Order
from tests.faults.world import Killer, World

relaxed = settings(
    deadline=None,
    derandomize=True,
    # Without shrinking: each example is a whole run, and a failure shows its seed and timeline as drawn.
    phases=[Phase.explicit, Phase.generate],
    database=None,
    suppress_health_check=list(HealthCheck),
)

text = st.text(max_size=30) | st.sampled_from(
    ["", "\x00", "\ud800", "=1+1", "a\nb", '"', "x" * 5000, "\u202e", "ﷺ" * 300]
)
values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)
FIELDS = [
    "date",
    "storeId",
    "storeName",
    "loyaltyCardNumber",
    "emailAddress",
    "currency",
    "total",
    "orderType",
    "lines",
]
changes = st.lists(
    st.tuples(st.just("set"), st.sampled_from([*FIELDS, "extra"]), values)
    | st.tuples(st.just("drop"), st.sampled_from(FIELDS), st.none())
    | st.tuples(st.just("pascal"), st.just(""), st.none())
    | st.tuples(st.just("twice"), st.sampled_from(FIELDS), values)
    | st.tuples(st.just("nest"), st.just(""), st.integers(10, 3000))
    | st.tuples(st.just("lines"), st.just(""), st.sampled_from([0, 1, 10_000]))
    | st.tuples(st.just("bom"), st.just(""), st.none())
    | st.tuples(st.just("encoding"), st.just(""), st.sampled_from(["utf-16", "latin-1", "cp037"]))
    | st.tuples(st.just("cut"), st.just(""), st.integers(0, 300))
    | st.tuples(st.just("bytes"), st.just(""), st.binary(max_size=40)),
    max_size=3,
)


_LARGEST = 1_000_000
"""Bytes; the bus takes no larger message: ten thousand lines fit, but not in UTF-16."""


def _mangled(order: Order, changes: list[tuple[str, str, Any]]) -> bytes:
    """The order's message after an ERP's mistakes."""
    document = json.loads(order.body())
    tail, front, encoding, cut, raw = "", b"", "utf-8", None, None
    for kind, field, value in changes:
        if kind == "set":
            document[field] = value
        elif kind == "drop":
            document.pop(field, None)
        elif kind == "pascal":
            document = {name[:1].upper() + name[1:]: inner for name, inner in document.items()}
        elif kind == "twice":
            tail += f',"{field}":{json.dumps(value)}'
        elif kind == "nest":
            tail += ',"deep":' + "[" * value + "]" * value
        elif kind == "lines":
            document["lines"] = [{"productCode": str(n), "quantity": "1", "total": "1"} for n in range(value)]
        elif kind == "bom":
            front = b"\xef\xbb\xbf"
        elif kind == "encoding":
            encoding = value
        elif kind == "cut":
            cut = value
        else:
            raw = value
    if raw is not None:
        return bytes(raw[:_LARGEST])
    plain = json.dumps(document, ensure_ascii=encoding != "utf-8")
    body = front + (plain[:-1] + tail + "}").encode(
        encoding, errors="surrogatepass" if encoding == "utf-8" else "replace"
    )
    return body[: min(_LARGEST, cut if cut is not None else _LARGEST)]


def _where(world: World, judge: Judge, bodies: dict[str, bytes]) -> None:
    """Every body is an order in the ledger under its own number, or in quarantine byte for byte; never both or none.

    What is sent was told to the Profile Store once, under a number that was published.
    """
    world.wait_for_locks()
    for _ in range(6):
        done = world.run(tries=1)
        if not world.sandbox.subscription(world.topic)["active"] and not world.under_way(done):
            break
    with LedgerLook(world.ledger) as ledger:
        assert ledger is not None
        status = dict(ledger.execute(sa.text(f"select order_number, status from {ON_THE_WAY}")).tuples().all())
        quarantined = Counter(bytes(raw) for raw in ledger.scalars(sa.text("select raw from quarantine")))
    sent = Counter(str(each["event"]["payload"]["orderNumber"]) for each in world.sandbox.events(world.first_event))
    mine = {number: times for number, times in sent.items() if number in bodies or number in status}
    wrong: list[str] = []
    for number, body in bodies.items():
        places = (number in status) + (body in quarantined)
        if places != 1:
            wrong.append(f"{number} is in {places} places: {body[:200]!r}")
    wrong += [f"{number} was sent {times} times" for number, times in mine.items() if times != 1]
    wrong += [f"{number} is in the ledger and was never published" for number in set(status) - set(bodies)]
    wrong += [
        f"{number} is {state}, and the Profile Store has {sent[number]} of it"
        for number, state in status.items()
        if (state == "sent") != (sent[number] == 1)
    ]
    stuck = [number for number, state in status.items() if state in ("pending", "ready", "sending")]
    wrong += [f"{number} is stuck as {status[number]}" for number in stuck]
    counts = world.sandbox.subscription(world.topic)
    if counts["active"] or counts["locked"]:
        wrong.append(f"{counts['active'] + counts['locked']} messages are still on the bus")
    assert not wrong, "\n".join([*wrong[:20], "", str(world.timeline)])
    judge.count(len(bodies))


def _messages(make_world: MakeWorld, seed: int, mistakes: list[list[tuple[str, str, Any]]]) -> None:
    world, judge = make_world(seed, max_bad_share=1)
    orders = world.source.take(len(mistakes) + 10, only="sent")
    bodies = {order.number: order.body() for order in orders[len(mistakes) :]}
    for order, change in zip(orders, mistakes, strict=False):
        bodies[order.number] = _mangled(order, change)
    # Two equal bodies would be one row of quarantine only with equal ids: each has its own.
    world.inject(8, "mangled messages", times=len(mistakes))
    world.send_raw([(body, number) for number, body in bodies.items()])
    _where(world, judge, bodies)


@pytest.mark.smoke
def test_messages_of_any_kind_in_brief(make_world: MakeWorld) -> None:
    @settings(relaxed, max_examples=1)
    @given(st.lists(changes, min_size=25, max_size=40))
    def check(mistakes: list[list[tuple[str, str, Any]]]) -> None:
        _messages(make_world, 801, mistakes)

    check()


@pytest.mark.weight(80)
@pytest.mark.parametrize("seed", range(810, 812))
def test_messages_of_any_kind(make_world: MakeWorld, seed: int) -> None:
    @settings(relaxed, max_examples=10)
    @given(st.lists(changes, min_size=20, max_size=60), st.just(seed))
    def check(mistakes: list[list[tuple[str, str, Any]]], _: int) -> None:
        _messages(make_world, seed, mistakes)

    check()


class Extract:
    """One CSV file as an ERP may write it; what must become of each of its orders."""

    def __init__(self, pick: random.Random, orders: list[Order]) -> None:
        self.orders = orders
        self.delimiter = pick.choice(",;\t|")
        self.newline = pick.choice(["\n", "\r\n"])
        self.bom = pick.random() < 0.3
        self.quoting = pick.choice([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
        self.columns = list(HEADER)
        if pick.random() < 0.5:
            pick.shuffle(self.columns)
        if pick.random() < 0.5:
            self.columns.insert(pick.randrange(len(self.columns)), "a_column_of_theirs")
        if pick.random() < 0.3:
            self.columns.remove("store_name")
        self.zipped = pick.random() < 0.5
        self.nasty = pick.choice(
            ["=1+1", "@SUM(A1)", 'say "hi"', "two\nlines", "a,b;c\td|e", "ends in \\", "Ångström ﷺ"]
        )

    def content(self) -> bytes:
        text = io.StringIO()
        table = csv.writer(text, delimiter=self.delimiter, lineterminator=self.newline, quoting=self.quoting)
        table.writerow(self.columns)
        for order in self.orders:
            for row in order.rows():
                named = dict(zip(HEADER, row, strict=True)) | {"description": self.nasty, "a_column_of_theirs": "x"}
                table.writerow([named[column] for column in self.columns])
        data = (b"\xef\xbb\xbf" if self.bom else b"") + text.getvalue().encode()
        return gzip.compress(data) if self.zipped else data


@pytest.mark.weight(15)
@pytest.mark.parametrize("seed", in_smoke(range(820, 824), 820))
def test_extracts_of_any_shape(make_world: MakeWorld, seed: int) -> None:
    """Every order of every file arrives, whatever the delimiter, the quoting, the order of columns or the encoding."""
    world, judge = make_world(seed, use_topic=False)
    judge.extra = {"aColumnOfTheirs"}
    for n in range(12):
        orders = world.source.take(25)
        file = Extract(world.random, orders)
        name = "Store 0404" if "store_name" in file.columns else None
        dressed = [replace(order.with_description(file.nasty), store_name=name) for order in orders]
        world.published.update({order.number: [order] for order in dressed})
        # A feed each: that a column is gone from one file to the next of a feed is another fault.
        feed = f"{'abcdefghijkl'[n]}.csv"
        path = world.extracts / f"2017/06/{n + 1:02d}" / (f"{feed}.gz" if file.zipped else feed)
        path.parent.mkdir(parents=True)
        path.write_bytes(file.content())
        world.inject(8, f"{path.name}: {file.delimiter!r}, columns {file.columns}, {file.nasty!r}")
    judge.fault_happened()
    world.recover(world.run())
    judge.check(at_least=200, recovered=True)


@pytest.mark.weight(20)
@pytest.mark.parametrize("seed", range(830, 833))
def test_extracts_that_break_off(make_world: MakeWorld, seed: int) -> None:
    """Cut at any byte: the orders before the break arrive; the whole file, delivered later, brings the rest, once."""
    world, judge = make_world(seed, use_topic=False, max_bad_share=1)
    for n in range(10):
        orders = world.source.take(20)
        for order in orders:
            world.published[order.number] = [order]
        whole = Extract(world.random, orders)
        whole.nasty, whole.columns, whole.zipped = 'A, "thing"', list(HEADER), n % 2 == 0
        data = whole.content()
        path = world.extracts / f"2017/06/{n + 1:02d}" / ("orders.csv.gz" if whole.zipped else "orders.csv")
        path.parent.mkdir(parents=True)
        cut = world.random.randrange(20, len(data))
        path.write_bytes(data[:cut])
        world.inject(8, f"{path} is cut after {cut} of {len(data)} bytes")
        judge.fault_happened()
        world.run(tries=1)
        path.write_bytes(data)
        world.timeline.note("the whole file is delivered")
    world.recover()
    judge.check(at_least=120, recovered=True)


def _gzip_of(orders: list[Order]) -> bytes:
    return gzip.compress(orders[0].body())


WRAPPED: dict[str, tuple[int, Callable[[list[Order]], bytes]]] = {
    "an array": (3, lambda orders: b"[" + b",".join(each.body() for each in orders) + b"]"),
    "an array of one": (1, lambda orders: b"[" + orders[0].body() + b"]"),
    "serialised twice": (1, lambda orders: json.dumps(orders[0].body().decode()).encode()),
    "an array serialised twice": (
        2,
        lambda orders: json.dumps("[" + ",".join(each.body().decode() for each in orders) + "]").encode(),
    ),
    "gzip": (1, _gzip_of),
    "UTF-16": (1, lambda orders: orders[0].body().decode().encode("utf-16")),
    "a byte order mark": (1, lambda orders: b"\xef\xbb\xbf" + orders[0].body()),
    "a string as .NET writes it": (
        1,
        lambda orders: b"@\x06string\x083http://schemas.microsoft.com/2003/10/Serialization/\x9a"
        + len(orders[0].body()).to_bytes(2, "little") + orders[0].body() + b"\x01",
    ),
}  # fmt: skip


@pytest.mark.smoke
def test_messages_in_whatever_publishers_wrap_them(make_world: MakeWorld) -> None:
    """A drain is killed with them on disk: those of several orders come again as a whole."""
    world, judge = make_world(841)
    bodies = []
    for what, (count, wrap) in WRAPPED.items():
        for _ in range(5):
            orders = world.source.take(count, only="sent")
            bodies.append((wrap(orders), orders))
        world.inject(8, f"messages in {what}", times=5)
    world.publish_wrapped(*bodies)
    judge.fault_happened()
    assert world.run(killer=Killer({"drain_topic": ["topic.after_commit:1"]})).kills == 1
    world.recover()
    judge.check(at_least=5 * sum(count for count, _ in WRAPPED.values()), recovered=True)


def _field(column: str, change: Callable[[str], str]) -> Callable[[Order], bytes]:
    """The order's rows with one column of its last row changed."""

    def spoilt(order: Order) -> bytes:
        rows = [list(row) for row in order.rows()]
        rows[-1][HEADER.index(column)] = change(rows[-1][HEADER.index(column)])
        return "".join(",".join(row) + "\n" for row in rows).encode("latin-1")

    return spoilt


SPOILT: dict[str, Callable[[Order], bytes]] = {
    "a byte of Windows-1252": _field("description", lambda text: f"{text} \xe9"),
    "a quote that is not closed": _field("description", lambda text: f'"{text}'),
    "a column too many": _field("description", lambda text: f"{text},{text}"),
    "an amount in words": _field("line_total", lambda _: "three"),
    "thousands with a dot": _field("line_total", lambda _: "1.234"),
    "two totals": _field("order_total", lambda total: f"{total}1"),
    "two cards": _field("loyalty_card", lambda card: f"{card}9"),
    "a card of a spreadsheet": _field("loyalty_card", lambda _: "6.03543E+15"),
    "a number of a spreadsheet": _field("order_number", lambda _: "1.23457E+11"),
    "a date that stands for none": _field("order_date", lambda _: "1753-01-01T00:00:00Z"),
    "a date in two days": _field("order_date", lambda _: f"{datetime.now(timezone.utc) + timedelta(2):%Y-%m-%d}"),
    "no currency that is one": _field("currency", lambda _: "EURO"),
}


@pytest.mark.weight(60)
def test_one_bad_row_sets_its_own_order_aside_and_reading_goes_on_behind_it(make_world: MakeWorld) -> None:
    """Each file has one; its order arrives once the ERP delivers the file as it should be."""
    world, judge = make_world(842, use_topic=False, max_bad_share=1)
    wholes = {}
    for n, (what, spoilt) in enumerate(SPOILT.items()):
        orders = [*world.source.take(12, only="sent"), *world.source.take(1, only="sent"), *world.source.take(12)]
        path = world.extract(f"{'abcdefghijklmnop'[n]}.csv", orders)
        wholes[path] = path.read_bytes()
        path.write_bytes(wholes[path].replace(orders[12].csv(), spoilt(orders[12])))
        assert path.read_bytes() != wholes[path]
        world.inject(8, f"{what}, in the middle of {path.name}")
    judge.fault_happened()
    done = world.run()
    report = done.report or {}
    assert report["unread_files"] == 0
    assert report["orders"] == 24 * len(SPOILT)
    assert len(SPOILT) <= report["quarantined"] <= 2 * len(SPOILT)
    assert report["red"] or {"quarantined"} <= _causes(world)
    for path, whole in wholes.items():
        path.write_bytes(whole)
    world.timeline.note("the files are delivered as they should be")
    world.recover()
    judge.check(at_least=12 * len(SPOILT), recovered=True)


def _causes(world: World) -> set[str]:
    with LedgerLook(world.ledger) as ledger:
        assert ledger is not None
        return set(ledger.scalars(sa.text("select cause from alerts")))


UNREAD: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "an ending nobody expects": ("a.export", lambda data: data),
    "a name that is hidden": (".b.csv", lambda data: data),
    "a name of one being written": ("c.csv.tmp", lambda data: data),
    "a column twice": ("d.csv", lambda data: data.replace(b"store_name", b"store_id", 1)),
    "a column that is gone": ("e.csv", lambda data: data.replace(b"order_total", b"Summe", 1)),
    "a heading with a slip": ("f.csv", lambda data: data.replace(b"loyalty_card", b"loyalty_crad", 1)),
    "another encoding": ("g.csv", lambda data: data.decode().encode("utf-16")),
    "no trailer": ("h.csv", lambda data: data.rsplit(b"EOF", 1)[0]),
    "a trailer of another file": ("i.csv", lambda data: data.replace(b"EOF;", b"EOF;1", 1)),
    "a last order without its last line": ("j.csv", lambda data: data.rsplit(b"\n", 3)[0] + b"\nEOF;20\n"),
    "a second half of another disk": ("k.csv", lambda data: data[: len(data) // 2] + bytes(range(128, 256)) * 8),
}  # fmt: skip


@pytest.mark.weight(30)
def test_what_is_not_read_is_told_and_nothing_of_it_is_landed_until_it_comes_as_it_should(
    make_world: MakeWorld,
) -> None:
    world, judge = make_world(843, use_topic=False, extract_trailer=r"EOF;(?P<count>\d+)")
    wholes = {}
    for n, (what, (name, change)) in enumerate(UNREAD.items()):
        path = world.extract(f"{'abcdefghijklmnop'[n]}.csv", world.source.take(20, only="sent"))
        wholes[path] = path.read_bytes() + b"EOF;20\n"
        path.unlink()
        path.with_name(name).write_bytes(change(wholes[path]))
        world.inject(8, f"{what}: {name}")
    judge.fault_happened()
    done = world.run(clock={"seconds": 0.0})
    report = done.report or {}
    waiting = report["unread_files"] + report["left_files"]
    assert (done.green, report["orders"], waiting) == (False, 0, len(UNREAD))
    assert _causes(world) >= {"unread_files"}
    world.run(clock={"seconds": 4 * 3600.0})
    assert _causes(world) >= {"unread_files", "left_files"}
    for path, whole in wholes.items():
        for name in (each for each, _ in UNREAD.values()):
            if name.lstrip(".")[0] == path.name[0] and name != path.name:
                path.with_name(name).unlink()
        path.write_bytes(whole)
    world.timeline.note("the files are delivered as they should be")
    world.recover()
    judge.check(at_least=20 * len(UNREAD), recovered=True)


def test_order_changed_later(make_world: MakeWorld) -> None:
    """The later content wins until the order was sent; after that the first stays, and the change is counted."""
    world, judge = make_world(840, enable_track_events=False)
    before = world.source.take(40, only="sent")
    world.publish(before)
    judge.fault_happened()
    world.inject(8, "orders are changed before and after they were sent", times=80)
    world.run()
    changed = [order.with_description("changed before it was sent") for order in before]
    world.extract("2017/06/05/changed.csv", changed)
    for order in changed:
        world.published[order.number] = [order]
    done = world.run()
    assert done.report is not None
    assert done.report["corrections"] == 40
    world.settings["enable_track_events"] = True
    world.recover()
    judge.check(at_least=40, deliveries=0, recovered=True)
    again = [order.with_description("changed after it was sent") for order in before]
    world.publish(again)
    for order in changed:
        world.published[order.number] = [order]  # the first stays
    done = world.recover()
    assert done.report is not None
    assert done.report["corrections"] == 40
    judge.check(at_least=40, deliveries=0)
