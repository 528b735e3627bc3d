"""A declaration proposed for a file that nobody has described, and how sure each line of it is; nothing uses it."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import ijson
import yaml
from lxml import etree

from include.instore.model.declarations import REQUIRED, Dates, Numbers
from include.instore.model.errors import FatalError
from include.instore.sources.adapters.values import moment, number
from include.instore.sources.extracts.documents import plain_element

_HEAD_BYTES = 1 << 20
_RECORDS = 200
_NAMES: dict[str, list[str]] = yaml.safe_load(Path(__file__).with_name("column_names.yaml").read_text(encoding="utf-8"))
_AMOUNTS = ("order.total", "lines.quantity", "lines.unitPrice", "lines.discount", "lines.total")
_DATES = (
    "iso", "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S", "%d.%m.%y", "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%Y %H:%M",
    "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S", "%m/%d/%Y %I:%M %p", "%m/%d/%Y %I:%M:%S %p",
    "%b %d, %Y %I:%M:%S %p", "%b %d, %Y", "%d %b %Y", "%d-%b-%Y", "%d-%m-%Y", "%Y/%m/%d", "%Y%m%d", "%Y%m%d%H%M%S",
    "unix_ms", "unix",
)  # fmt: skip
_DIALECTS = ((".", ""), (",", ""), (".", ","), (",", "."), (",", " "), (".", "'"))
_TIMES = ("time", "uhrzeit", "zeit", "heure", "hora", "ora", "tid", "tijd", "ordertime", "transactiontime")
_PLACES = (
    "format", "encoding", "delimiter", "title_lines", "first_row_only", "orders", "lists", "time", "order", "lines_at",
    "lines", "values", "numbers", "dates",
)  # fmt: skip
Columns = dict[str, list[str]]


@dataclass(frozen=True)
class Guess:
    """One line of a proposal.

    :param name: of the declaration, such as ``order.total`` or ``encoding``.
    :param is_what: the heading, path or value; empty: not found.
    :param sure: ``sure``, ``likely`` or ``unsure``.
    """

    name: str
    is_what: Any
    sure: str
    why: str


def suggest(path: Path) -> list[Guess]:
    """What an adapter for this file might declare.

    :raises FatalError: it is neither text, JSON nor XML, plain or .gz.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            raw = stream.read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error):
        raise FatalError("The file is not a complete gzip file; give a complete one.") from None
    utf_16 = raw[:2] in (b"\xff\xfe", b"\xfe\xff")
    if utf_16:
        raw = raw[: len(raw) // 2 * 2].decode("utf-16", "replace").encode()
    begins = raw.lstrip(b"\xef\xbb\xbf \r\n\t")[:1]
    try:
        if begins in (b"{", b"["):
            form, columns, lines = _of_json(raw)
        elif begins == b"<":
            form, columns, lines = _of_xml(raw)
        else:
            form, columns = _of_csv(raw)
            lines = columns
    except (ijson.JSONError, etree.XMLSyntaxError, UnicodeError, csv.Error, IndexError, StopIteration):
        raise FatalError("The file is neither CSV nor JSON nor XML; no declaration can be proposed.") from None
    if utf_16:
        form = [each for each in form if each.name != "encoding"]
        form.append(Guess("encoding", "utf-16", "sure", "its byte order mark"))
    fields = list(_fields(columns, lines))
    return sorted([*form, *fields, *_writing(fields, columns, lines)], key=lambda each: _place(each.name))


def as_yaml(guesses: Iterable[Guess]) -> str:
    """The declaration, each line with how sure it is."""
    lines: list[str] = []
    part = ""
    for guess in guesses:
        within, _, name = guess.name.rpartition(".")
        if within and within != part:
            lines.append(f"{within}:")
        part = within
        told = f"{name}: {json.dumps(guess.is_what, ensure_ascii=False)}" if guess.is_what else f"# {name}: ?"
        lines.append(f"{'  ' if within else ''}{told}  # {guess.sure}: {guess.why}")
    return "\n".join(lines)


def _place(name: str) -> int:
    return _PLACES.index(name.partition(".")[0])


def _of_csv(raw: bytes) -> tuple[list[Guess], Columns]:
    encoding, sure, why = "utf-8-sig", "sure", "its bytes are UTF-8"
    try:
        raw[: raw.rfind(b"\n") + 1 or None].decode()
    except UnicodeDecodeError:
        encoding, sure, why = "cp1252", "unsure", "its bytes are not UTF-8; see that its letters are right"
    text = raw.decode(encoding, errors="replace")
    if "\0" in text:
        raise UnicodeError
    lines = text.splitlines(keepends=True)[:_RECORDS]
    if told := re.fullmatch(r"sep=(.)\s*", lines[0], re.IGNORECASE):
        lines = lines[1:]
    counts = {each: Counter(line.count(each) for line in lines if each in line) for each in ",;\t|"}
    delimiter = (
        told[1]
        if told
        else max(counts, key=lambda each: max(((n, c) for c, n in counts[each].items()), default=(0, 0)))
    )
    columns = counts[delimiter].most_common(1)[0][0] if counts[delimiter] else 0
    # A title may be followed by the delimiters of the columns that it has not.
    filled = [sum(bool(cell.strip()) for cell in line.split(delimiter)) for line in lines]
    titles = next((at for at, count in enumerate(filled) if count > columns * 0.75), 0)
    heading, *rows = csv.reader(io.StringIO("".join(lines[titles:])), delimiter=delimiter)
    form = [Guess("format", "csv", "sure", "rows of text"), Guess("encoding", encoding, sure, why)]
    form.append(Guess("delimiter", delimiter, "sure" if columns else "unsure", "it cuts the heading"))
    if titles:
        form.append(Guess("title_lines", titles, "likely", "lines above the heading"))
    whole = [row for row in rows if len(row) == len(heading)]
    return form, {name.strip(): [row[at].strip() for row in whole] for at, name in enumerate(heading)}


def _of_json(raw: bytes) -> tuple[list[Guess], Columns, Columns]:
    found: list[Any] = []
    with contextlib.suppress(ijson.JSONError):  # of a large file only the beginning is there
        found.extend(islice(ijson.items(io.BytesIO(raw), "item"), _RECORDS))
    found = found or list(islice(ijson.items(io.BytesIO(raw), "", multiple_values=True), _RECORDS))
    path = ""
    while True:  # an order has a list of objects in it; what has only another object is an envelope
        inner = found[0].items() if isinstance(found[0], dict) else ()
        of_orders = [name for name, value in inner if _is_objects(value) and any(map(_is_objects, value[0].values()))]
        envelopes = [name for name, value in inner if isinstance(value, dict) and any(map(_is_objects, value.values()))]
        if not of_orders and (not envelopes or any(_is_objects(value) for _, value in inner)):
            break
        name = (of_orders or envelopes)[0]
        path = f"{path}.{_step(name)}".lstrip(".")
        values = [document[name] for document in found if isinstance(document, dict) and name in document]
        found = [each for value in values for each in (value if isinstance(value, list) else [value])]
    more = [Guess("orders", path, "likely", "objects with lists of objects in them")] if path else []
    return _documents([Guess("format", "json", "sure", "how it begins"), *more], found)


def _of_xml(raw: bytes) -> tuple[list[Guess], Columns, Columns]:
    parser = etree.XMLPullParser(("start",), resolve_entities=False, no_network=True, remove_comments=True)
    parser.feed(raw)
    _, root = next(parser.read_events())
    while True:  # what is there once, with several in it that have more than fields, is an envelope
        children = [child for child in root if isinstance(child.tag, str)][:_RECORDS]
        name, _ = Counter(etree.QName(child).localname for child in children).most_common(1)[0]
        orders = [child for child in children if etree.QName(child).localname == name]
        if len(orders) > 1 or not any(len(part) for child in orders[0] for part in child):
            break
        if len({child.tag for child in orders[0]}) == len(orders[0]):
            break
        root = orders[0]
    several = {
        etree.QName(child).localname
        for order in orders
        for parent in order.iter()
        for child in parent
        if len(parent.findall(child.tag)) > 1
    }
    form = [Guess("format", "xml", "sure", "how it begins"), Guess("orders", name, "likely", "the commonest element")]
    if several:
        form.append(Guess("lists", sorted(several), "likely", "they come more than once"))
    return _documents(form, [plain_element(order, several) for order in orders])


def _documents(form: list[Guess], orders: Sequence[Any]) -> tuple[list[Guess], Columns, Columns]:
    lists: dict[str, list[Any]] = {}
    columns = _leaves(orders, lists)
    lines = {path: _leaves(found, {}) for path, found in lists.items()}
    words = {word for name in _NAMES if name.startswith("lines.") for word in _NAMES[name]}
    known = {path: sum(_last(name) in words for name in found) for path, found in lines.items()}
    best = max(known, key=lambda path: known[path], default="")
    if not known.get(best):
        return form, columns, {}
    return [*form, Guess("lines_at", best, "likely", "a list whose names are those of lines")], columns, lines[best]


def _is_objects(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(each, dict) for each in value)


def _step(name: str) -> str:
    return name if re.fullmatch(r"[A-Za-z_]\w*", name) else json.dumps(name)


def _leaves(documents: Iterable[Any], lists: dict[str, list[Any]], path: str = "") -> Columns:
    """The values by their paths; lists of objects go into ``lists``."""
    found: Columns = {}
    for document in documents:
        for name, value in document.items() if isinstance(document, dict) else ():
            at = path if name == "#text" else f"{path}.{_step(name)}".lstrip(".")
            if _is_objects(value):
                lists.setdefault(at, []).extend(value)
            elif isinstance(value, dict):
                for inner, values in _leaves([value], lists, at).items():
                    found.setdefault(inner, []).extend(values)
            elif not isinstance(value, list):
                found.setdefault(at, []).append("" if value is None else str(value))
    return found


def _last(path: str) -> str:
    """The name at a path's end, or a heading, without blanks and marks."""
    return re.sub(r"[\W_]", "", (path if " " in path else path.rstrip(".").rpartition(".")[2]).casefold())


def _fields(columns: Columns, lines: Columns) -> Iterator[Guess]:
    """Each field's best column, no column twice."""
    scored: list[tuple[float, str, str]] = []
    for name, words in _NAMES.items():
        for column, values in (lines if name.startswith("lines") else columns).items():
            by_name, shape = _by_name(column, words), _shape(name, [value for value in values if value])
            if shape is not False and (by_name or shape):
                # Rows may go without the number, but one that all have is likelier.
                scored.append((by_name - 0.2 * (name == "order.orderNumber" and "" in values), name, column))
    taken: dict[str, Guess] = {}
    used: set[tuple[bool, str]] = set()
    for by_name, name, column in sorted(scored, key=lambda each: -each[0]):
        key = (name.startswith("lines") and lines is not columns, column)
        if name not in taken and key not in used:
            used.add(key)
            also = [each for score, field, each in scored if field == name and score > 1 and each != column]
            filled = any((lines if name.startswith("lines") else columns)[column])
            why = "by its name" if by_name > 1 else "a part of its name" if by_name else "the shape of its values alone"
            why += f", as {' and '.join(also)}: ask" if also else "" if filled else "; it is empty"
            sure = "unsure" if by_name < 1 else "sure" if filled and not also else "likely"
            taken[name] = Guess(name, column, sure, why)
    for name in _NAMES:
        if name in taken:
            yield taken[name]
        elif name.removeprefix("order.") in REQUIRED:
            yield Guess(name, "", "unsure", "not found; name it, or put it into constants")


def _by_name(column: str, words: Sequence[str]) -> float:
    """More than 1: the very name, the commoner the more; less: the share of it that is a word; 0: neither."""
    longer = re.sub(r"[\W_]", "", "".join(column.split(".")[-2:]).casefold())  # such as shop.id
    for name in (_last(column), longer):
        if name in words:
            return 2 - words.index(name) / 100
    return max((len(word) / len(longer) for word in words if len(word) > 4 and word in longer), default=0.0)


def _shape(name: str, values: Sequence[str]) -> bool | None:
    """Whether values are of this field's shape: False: they cannot be it; None: nobody can tell by them."""
    if not values:
        return None
    if name == "order.emailAddress":
        return all("@" in value for value in values)
    if name == "order.currency":
        return all(re.fullmatch(r"[A-Z]{3}", value) for value in values)
    if name == "order.date":
        forms = _date_formats(values)  # seconds are digits, as many other things are
        return any(not form.startswith("unix") for form in forms) or (None if forms else False)
    if name == "order.orderNumber" and any("@" in value for value in values):
        return False
    if name == "order.loyaltyCardNumber":
        if not all(re.fullmatch(r"[\w\s-]*\d[\w\s-]*", value) for value in values):
            return False
        digits = [re.sub(r"[\s-]", "", value) for value in values]
        return (len(digits) > 2 and all(len(each) > 11 and each.isdigit() and _luhn(each) for each in digits)) or None
    return False if name in _AMOUNTS and not _dialects(values) else None


def _luhn(digits: str) -> bool:
    doubled = (int(each) * (1 + at % 2) for at, each in enumerate(reversed(digits)))
    return sum(each - 9 if each > 9 else each for each in doubled) % 10 == 0


def _fits(value: str, rules: Dates | Numbers) -> bool:
    try:
        moment(value, rules) if isinstance(rules, Dates) else number(value, rules)
    except ValueError:
        return False
    return True


def _date_formats(values: Sequence[str]) -> list[str]:
    forms = _DATES if all(len(value) > 8 for value in values) else _DATES[:-2]  # no date has that few digits
    return [form for form in forms if all(_fits(value, Dates(formats=(form,))) for value in values)]


def _dialects(values: Sequence[str]) -> list[Numbers]:
    signs = re.compile(r"^[^\d.,()+\s-]+|[^\d.,()+\s'-]+$")
    beside = {sign for value in values for sign in signs.findall(value.strip("() +-"))}
    negative = ["minus", *["trailing_minus"] * any(value.endswith("-") for value in values)]
    negative += ["parentheses"] * any("(" in value for value in values)
    rules = [
        Numbers.model_validate(
            {"decimal": decimal, "thousands": mark, "currency_signs": sorted(beside)[:5], "negative": negative}
        )
        for decimal, mark in _DIALECTS
    ]
    return [each for each in rules if all(_fits(value, each) for value in values)]


def _writing(fields: Sequence[Guess], columns: Columns, lines: Columns) -> Iterator[Guess]:
    """How the numbers and dates of the chosen columns are written, and whether rows go without their order's number."""
    values = {each.name: (lines if each.name.startswith("lines") else columns).get(each.is_what, []) for each in fields}
    amounts = [value for name in _AMOUNTS for value in values.get(name, ()) if value]
    if amounts and (fitting := _dialects(amounts)):
        meanings = {tuple(number(value, rules) for value in amounts) for rules in fitting}
        sure, why = ("sure", "nothing else fits") if len(meanings) == 1 else ("unsure", "150.000 may be thousands: ask")
        for name, value in fitting[0].model_dump().items():
            if value and value != ("minus",):
                yield Guess(f"numbers.{name}", list(value) if isinstance(value, tuple) else value, sure, why)
    dates = [value for value in values["order.date"] if value]
    time = next((name for name in columns if lines is columns and _last(name) in _TIMES), "")
    if time and dates and all(re.fullmatch(r"\d\d?:\d\d.*", value) for value in columns[time] if value):
        yield Guess("time", time, "likely", "by its name, beside the date")
        dates = [f"{date} {at}" for date, at in zip(values["order.date"], columns[time], strict=True) if date]
    if dates and (forms := _date_formats(dates)):
        meanings_of = {tuple(moment(value, Dates(formats=(form,))) for value in dates) for form in forms}
        also = f"; {', '.join(forms[1:])} would fit as well: ask" if len(meanings_of) > 1 else ""
        yield Guess("dates.formats", forms[:1], "unsure" if also else "sure", f"all {len(dates)} fit it{also}")
        if not re.search(r"[+-]\d\d:?\d\d$|Z$|\)/$", dates[0]) and not forms[0].startswith("unix"):
            yield Guess("dates.zone", "", "unsure", "they have no offset: name their zone, such as Europe/Berlin")
    if types := sorted({value for value in values.get("order.orderType", ()) if value} - {"sale", "return"})[:9]:
        yield Guess("values.orderType", "", "unsure", f"say of {', '.join(types)} which is a sale and which a return")
    numbers = values["order.orderNumber"]
    if lines is columns and numbers and numbers[0] and "" in numbers:
        yield Guess("first_row_only", True, "likely", "rows go without a number")
