"""A declaration proposed for a file that nobody has described, and how sure each line of it is; nothing uses it."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import json
import re
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from functools import cached_property
from pathlib import Path
from typing import Any

import ijson
import yaml
from ijson.common import ObjectBuilder
from lxml import etree

from include.instore.model.declarations import REQUIRED, Dates, Declaration, Numbers
from include.instore.model.errors import FatalError
from include.instore.model.identifiers import plain_name
from include.instore.sources.adapters.values import moment, number
from include.instore.sources.extracts.documents import plain_element
from include.instore.sources.extracts.records import BrokenExtract

_HEAD_BYTES = 1 << 20
_END_BYTES = 1 << 12
_RECORDS = 200
_WORDS: dict[str, Any] = yaml.safe_load(Path(__file__).with_name("column_names.yaml").read_text(encoding="utf-8"))
_NAMES: dict[str, list[str]] = _WORDS["fields"]
_AMOUNTS = ("order.total", "lines.quantity", "lines.unitPrice", "lines.discount", "lines.total")
_ASKED = {
    **{f"order.{name}": "name it, or a constant" for name in REQUIRED},
    "order.total": "name it, or have `code` add the lines up",
    "order.loyaltyCardNumber": "name it, or orders find their customers by email alone",
    "lines.productCode": "name it, or lines are without",
    "lines.quantity": "name it, or lines are without",
}
"""What is told of a field that no column is found for."""
_DATES = ("iso", *map("".join, itertools.product(_WORDS["days"], _WORDS["hours"])), *_WORDS["moments"])
_DIALECTS = ((".", ""), (",", ""), (".", ","), (",", "."), (",", " "), (".", "'"))
_OTHERS = {
    b"PAR1": "Parquet: declare `format: parquet`, and name its columns as the headings of a CSV",
    b"PK\3\4": "an archive, or a workbook: give the files that are in it, or save it as CSV",
}
_PLACES = tuple(Declaration.model_fields)
Columns = dict[str, list[str]]


@dataclass(frozen=True)
class Guess:
    """One line of a proposal.

    :param name: of the declaration, such as ``order.total`` or ``encoding``.
    :param is_what: the heading, path or value; empty: not found, or one of several that a person has to choose from.
    :param sure: ``sure``, ``likely`` or ``unsure``.
    """

    name: str
    is_what: Any
    sure: str
    why: str


@dataclass(frozen=True)
class _Sample:
    """The beginning of a file, taken apart.

    :param columns: the values by their headings, or by their paths from the order. :param lines: the same of the lines;
        of rows the very same. :param twice: headings that are there twice, which no declaration can name.
    """

    form: list[Guess]
    columns: Columns
    lines: Columns
    twice: Sequence[str] = field(default=())

    @property
    def of_rows(self) -> bool:
        return self.lines is self.columns

    @cached_property
    def numbers(self) -> str:
        """Of rows the column with their orders' numbers; empty: none is known."""
        return _find_numbers(self.columns) if self.of_rows else ""

    @cached_property
    def in_lines(self) -> set[str]:
        """Of rows the columns that are their lines'."""
        return _differing(self.columns, self.numbers)

    def of(self, name: str) -> Columns:
        """Where a field's values are."""
        return self.lines if name.startswith("lines") else self.columns


def suggest(path: Path) -> list[Guess]:
    """What an adapter for this file might declare.

    :raises FatalError: it is neither text with columns, JSON nor XML, plain or .gz, or has no order's fields.
    """
    try:
        sample = _sample(path)
    except BrokenExtract as broken:
        raise FatalError(f"The file cannot be read: it {broken.detail}.") from None
    except (ijson.JSONError, etree.XMLSyntaxError, UnicodeError, csv.Error, IndexError, StopIteration):
        raise FatalError("The file is neither CSV nor JSON nor XML; no declaration can be proposed.") from None
    fields = list(_fields(sample))
    if not any(each.is_what for each in fields):
        raise FatalError("Nothing in the file looks like an order's number, date, store or total; is it the right one?")
    written = [*sample.form, *fields, *_writing({each.name: each.is_what for each in fields}, sample)]
    by_name = {each.name: each for each in written}  # the later one of a name counts
    return sorted(by_name.values(), key=lambda each: _PLACES.index(each.name.partition(".")[0]))


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


def _sample(path: Path) -> _Sample:
    raw, end = _beginning(path)
    if told := _OTHERS.get(raw[:4]):
        raise FatalError(f"The file is {told}.")
    encoding = json.detect_encoding(raw)
    if encoding.startswith("utf-16"):
        raw, end = (part[: len(part) // 2 * 2].decode(encoding, "replace").encode() for part in (raw, end))
    begins = raw.lstrip(b"\xef\xbb\xbf \r\n\t")[:1]
    sample = _of_json(raw) if begins in (b"{", b"[") else _of_xml(raw) if begins == b"<" else _of_csv(raw, end)
    if encoding.startswith("utf-16"):
        sample.form.append(Guess("encoding", encoding, "sure", "its byte order mark, or its zero bytes"))
    return sample


def _beginning(path: Path) -> tuple[bytes, bytes]:
    """The first megabyte, and what the file ends in; nothing where that is not known."""
    with path.open("rb") as stream:
        try:
            compressed = stream.read(2) == b"\x1f\x8b"
            stream.seek(0)
            raw = (gzip.GzipFile(fileobj=stream) if compressed else stream).read(_HEAD_BYTES)
        except (OSError, EOFError, zlib.error):
            raise FatalError("The file is not a complete gzip file; give a complete one.") from None
        if len(raw) < _HEAD_BYTES:
            return raw, raw[-_END_BYTES:]
        stream.seek(-_END_BYTES, io.SEEK_END)
        return raw, b"" if compressed else stream.read()


def _of_csv(raw: bytes, end: bytes) -> _Sample:
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
    sizes = {each: Counter(map(len, csv.reader(lines, delimiter=each))) for each in (told[1] if told else ",;\t|")}
    # Of a comma in each amount there are as many rows, and fewer columns.
    cells, columns, delimiter = max((n * (size - 1), size, each) for each in sizes for size, n in sizes[each].items())
    if not cells:
        raise FatalError("The file is text in which nothing stands between columns; have it exported as CSV.")
    # A title may be followed by the delimiters of the columns that it has not.
    filled = [sum(bool(cell.strip()) for cell in line.split(delimiter)) for line in lines]
    titles = next((at for at, count in enumerate(filled) if count > columns * 0.75), 0)
    heading, *rows = csv.reader(io.StringIO("".join(lines[titles:])), delimiter=delimiter)
    heading = [name.strip() for name in heading]
    if sum(_is_data(name) for name in heading) > 1:
        raise FatalError(
            "No line of the file names its columns, or its lines are of several kinds; have it exported with a "
            "heading and a row a line, or as JSON or XML."
        )
    form = [Guess("format", "csv", "sure", "rows of text"), Guess("encoding", encoding, sure, why)]
    form.append(Guess("delimiter", delimiter, "sure", "it cuts the heading"))
    if titles:
        form.append(Guess("title_lines", titles, "likely", "lines above the heading"))
    last = end.decode(encoding, errors="replace").rstrip().splitlines()[-1:]
    if pattern := _trailer(last, rows, delimiter, len(heading)):
        form.append(Guess("trailer", pattern, "likely", "the last line is no row as the others are"))
        rows = [row for row in rows if not re.fullmatch(pattern, delimiter.join(row))]
    whole = [row for row in rows if len(row) == len(heading)]
    named = {name: [row[at].strip() for row in whole] for at, name in enumerate(heading) if heading.count(name) == 1}
    return _Sample(form, named, named, sorted({name for name in heading if name and name not in named}))


def _is_data(heading: str) -> bool:
    amount = not heading[:1].isalpha() and _dialects([heading])  # h1 is a name
    return "@" in heading or bool(re.search(r"\d", heading) and (_date_formats([heading]) or amount))


def _trailer(last: Sequence[str], rows: Sequence[list[str]], delimiter: str, columns: int) -> str:
    """What the last line begins with, where it has other columns filled than all rows, and fewer."""
    cells = next(csv.reader(last, delimiter=delimiter), [])

    def filled(row: Sequence[str]) -> list[bool]:
        return [bool(cell.strip()) for cell in row]

    others = rows[:-1] if rows and rows[-1] == cells else rows
    before = re.match(r"[^\d\"]*", last[0]) if last else None
    if not (before and before[0] and others) or 2 * sum(filled(cells)) > columns or len(others) < 2:
        return ""
    pattern = f"{re.escape(before[0])}.*"
    alike = any(filled(row) == filled(cells) or re.fullmatch(pattern, delimiter.join(row)) for row in others)
    return "" if alike else pattern


def _of_json(raw: bytes) -> _Sample:
    found: list[Any] = []
    with contextlib.suppress(ijson.JSONError):  # of a large file only the beginning is there
        found.extend(itertools.islice(ijson.items(io.BytesIO(raw), "", multiple_values=True), _RECORDS))
    if not found:
        builder = ObjectBuilder()
        with contextlib.suppress(ijson.IncompleteJSONError):
            for event, value in ijson.basic_parse(io.BytesIO(raw)):
                builder.event(event, value)
        found = [builder.value]
    form = "json_lines" if len(found) > 1 and re.match(rb"[^\n]*\}\s*\n", raw) else "json"  # one on the first line
    path, orders = _orders_in(found[0][:_RECORDS] if isinstance(found[0], list) else found)
    guesses = [Guess("format", form, "sure", "how it begins")]
    if path:
        guesses.append(Guess("orders", ".".join(path).removesuffix("[]"), "likely", "the most fields of orders"))
    return _documents(guesses, orders)


def _of_xml(raw: bytes) -> _Sample:
    parser = etree.XMLPullParser(("start",), resolve_entities=False, no_network=True, remove_comments=True)
    with contextlib.suppress(etree.XMLSyntaxError):  # as above
        parser.feed(raw)
    _, root = next(parser.read_events())
    several = set()
    for parent in root.iter(etree.Element):
        names = Counter(etree.QName(child).localname for child in parent.iterchildren(etree.Element))
        several |= {name for name, count in names.items() if count > 1}
        if len(names) == 1 and len(parent[0]) > 1 and next(iter(names))[:3] in etree.QName(parent).localname:
            several |= names.keys()  # one Item in Items
    path, orders = _orders_in([plain_element(root, several)])
    name = path[-1].removesuffix("[]").strip('"') if path else etree.QName(root).localname
    form = [
        Guess("format", "xml", "sure", "how it begins"),
        Guess("orders", name, "likely", "the most fields of orders"),
    ]
    within = {
        etree.QName(part).localname for order in root.iter(f"{{*}}{name}") for part in order.iterdescendants("{*}*")
    }
    if several & within:
        form.append(Guess("lists", sorted(several & within), "likely", "they come more than once, or alone in a list"))
    return _documents(form, orders)


def _orders_in(documents: Sequence[Any]) -> tuple[tuple[str, ...], list[Any]]:
    """Where most fields of an order are by their names, the deepest such place, and what is there."""
    levels = [*_levels((), documents)] or [((), [])]
    words = {name: set(_NAMES[name]) for name in _NAMES if name.startswith("order.")}

    def fields(objects: list[Any]) -> int:
        names = {_last(column) for column in _leaves(objects, {})}
        return sum(bool(names & known) for known in words.values())

    counts = [fields(objects) for _, objects in levels]
    return levels[max(range(len(levels)), key=lambda at: (counts[at], at))]


def _levels(path: tuple[str, ...], values: Sequence[Any]) -> Iterator[tuple[tuple[str, ...], list[Any]]]:
    """Every place of objects in documents, those further in later."""
    objects = [each for each in values if isinstance(each, dict)][:_RECORDS]
    if objects:
        yield path, objects
    for name in dict.fromkeys(name for each in objects for name in each):
        inner = [each[name] for each in objects if each.get(name)]
        if any(isinstance(each, list) for each in inner):
            inner = [part for each in inner for part in (each if isinstance(each, list) else [each])]
            yield from _levels((*path, f"{_step(name)}[]"), inner)
        else:
            yield from _levels((*path, _step(name)), inner)


def _documents(form: list[Guess], orders: Sequence[Any]) -> _Sample:
    lists: dict[str, list[Any]] = {}
    columns = _leaves(orders, lists)
    lines = {path: _leaves(found, {}) for path, found in lists.items()}
    words = {word for name in _NAMES if name.startswith("lines.") for word in _NAMES[name]}
    best = max(lines, key=lambda path: sum(_last(name) in words for name in lines[path]), default="")
    if not any(_last(name) in words for name in lines.get(best, ())):
        none = Guess("lines_at", "", "unsure", "no list has the names of lines; name it, or orders have none")
        return _Sample([*form, none], columns, {})
    which, of_lines = _kinds_of_lines(lists[best], lines[best])
    where = Guess("lines_at", best + which, "likely", "a list whose names are those of lines")
    return _Sample([*form, where], columns, of_lines)


def _kinds_of_lines(elements: Sequence[Any], columns: Columns) -> tuple[str, Columns]:
    """Of elements that hold sales, returns or payments: which of them are lines, and their columns as one."""
    products = {
        column.partition(".")[0] for column in columns if "." in column and _last(column) in _NAMES["lines.productCode"]
    }
    kinds = sorted(kind for kind in products if not all(kind in each for each in elements))
    if not kinds:
        return "", columns
    either = " || ".join(kinds)
    lines = [each for each in elements if any(kind in each for kind in kinds)]
    inner = _leaves([next(each[kind] for kind in kinds if kind in each) for each in lines], {})
    whole = {name: values for name, values in columns.items() if name.partition(".")[0] not in kinds}
    merged = {
        (f"({either}).{name}" if len(kinds) > 1 else f"{either}.{name}"): values for name, values in inner.items()
    }
    return f"[?{either}]" if len(lines) < len(elements) else "", merged | (whole if len(lines) == len(elements) else {})


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
    return plain_name(re.split(r"[./](?=\S)", path)[-1])


def _fields(sample: _Sample) -> Iterator[Guess]:
    """Each field's best column, no column twice."""
    scored = sorted(_scored(sample), key=lambda each: -each[0])
    fittest = {column: name for _, name, column in reversed(scored)}
    taken: dict[str, Guess] = {}
    used: set[tuple[bool, str]] = set()
    for by_name, name, column in scored:
        key = (name.startswith("lines") and not sample.of_rows, column)
        if name not in taken and key not in used:
            used.add(key)
            equal = min(by_name, 1)
            equals = [each for score, field, each in scored if field == name and score >= equal and each != column]
            also = [each for each in equals if not sample.of_rows or fittest[each] == name]
            taken[name] = _guess(name, column, by_name, any(sample.of(name)[column]), also)
    if sample.of_rows and "order.total" not in taken:
        taken |= {each.name: each for each in _sums(sample, {name for _, name in used})}
    for name in _NAMES:
        if name in taken:
            yield taken[name]
        elif name in _ASKED and sample.of(name):
            twice = f"; the export has {', '.join(sample.twice)} twice: have it name them apart" if sample.twice else ""
            like = sample.numbers if name == "order.orderNumber" else ""
            seems = f"; the rows of one {like} stand together" if like else ""
            yield Guess(name, "", "unsure", f"not found: {_ASKED[name]}{seems}{twice}")


def _guess(name: str, column: str, by_name: float, filled: bool, also: Sequence[str]) -> Guess:
    if also and by_name < 1:
        return Guess(name, "", "unsure", f"{column} or {' or '.join(also)}: ask")
    why = "by its name" if by_name > 1 else "a part of its name" if by_name > 0 else "the shape of its values alone"
    why += f", as {' and '.join(also)}: ask" if also else "" if filled else "; it is empty"
    return Guess(name, column, "unsure" if by_name < 1 else "sure" if filled and not also else "likely", why)


def _scored(sample: _Sample) -> Iterator[tuple[float, str, str]]:
    """By how much each column may be each field."""
    for name, words in _NAMES.items():
        for column, values in sample.of(name).items():
            if name.startswith("order.") and column in sample.in_lines:
                continue
            by_name, shape = _by_name(column, words), _shape(name, [value for value in values if value])
            of_a_line = any(word in plain_name(column) for word in _WORDS["of_lines"])
            if by_name < 1 and (name.startswith("order.") if of_a_line else sample.of_rows and name == "lines.total"):
                continue
            if shape is not False and (by_name or shape):
                # Rows may go without the number, but one that all have is likelier.
                yield by_name - 0.5 * (name == "order.orderNumber" and "" in values), name, column


def _sums(sample: _Sample, used: set[str]) -> Iterator[Guess]:
    """The amount that is one in the rows of an order and the sum of another; nothing where there are several such."""
    free = {name: values for name, values in sample.columns.items() if name not in used and all(values)}
    amounts = {name: values for name, values in free.items() if _dialects(values)}
    numbers, found = sample.columns.get(sample.numbers, []), []
    for total, line in itertools.product(amounts.keys() - sample.in_lines, amounts.keys() & sample.in_lines):
        for rules in _dialects([*amounts[total], *amounts[line]])[:1]:
            sums: dict[str, Decimal] = {}
            for key, value in zip(numbers, amounts[line], strict=True):
                sums[key] = sums.get(key, Decimal(0)) + number(value, rules)
            told = dict(zip(numbers, amounts[total], strict=True))
            whole = list(sums)[:-1] or list(sums)  # the sample may end in an order
            if all(sums[key] == number(told[key], rules) for key in whole):
                found.append((total, line))
    for total, line in found if len(found) == 1 else ():
        yield Guess("order.total", total, "likely", f"in each order the sum of {line}")
        yield Guess("lines.total", line, "likely", f"{total} is its sum")


def _find_numbers(columns: Columns) -> str:
    """The column of rows that has the orders' numbers: by its name, or since the rows of each order stand together."""
    named = {column: _by_name(column, _NAMES["order.orderNumber"]) for column in columns}
    best = max(named, key=lambda column: named[column], default="")
    if named.get(best, 0) > 1:
        return best
    dates = {column for column, values in columns.items() if _of_date([*filter(None, values)] or [""])}

    def tells_orders_apart(column: str) -> bool:
        values = columns[column]
        together = len(list(itertools.groupby(values))) == len(set(values))
        return "" not in values and together and 1 < len(set(values)) < len(values) and column not in dates

    found = [column for column in columns if dates and tells_orders_apart(column)]
    found = [column for column in found if not _differing(columns, column) & dates]
    return max(found, key=lambda column: len(set(columns[column])), default="")


def _differing(columns: Columns, numbers: str) -> set[str]:
    """The columns that have several values in the rows of one order, so that they are its lines'."""
    of_order = {name: set(zip(columns.get(numbers, ()), values, strict=False)) for name, values in columns.items()}
    return {
        name for name, pairs in of_order.items()
        if len({pair for pair in pairs if all(pair)}) > len({number for number, value in pairs if number and value})
    }  # fmt: skip


def _by_name(column: str, words: Sequence[str]) -> float:
    """More than 1: the very name, the commoner the more; less: the share of it that is a word; 0: neither."""
    longer = plain_name("".join(re.split(r"[./](?=\S)", column)[-2:]))  # such as shop.id
    for name in (_last(column), longer):
        if name in words:
            return 2 - words.index(name) / 100
        if f"~{name}" in words:
            return 0.9 - words.index(f"~{name}") / 1000
    return max((len(word) / len(longer) for word in words if len(word) > 4 and word in longer), default=0.0)


def _shape(name: str, values: Sequence[str]) -> bool | None:
    """Whether values are of this field's shape: False: they cannot be it; None: nobody can tell by them."""
    if not values:
        return None
    if name in _AMOUNTS:
        return None if _dialects(values) else False
    return _SHAPES[name](values) if name in _SHAPES else None


def _of_currency(values: Sequence[str]) -> bool | None:
    return set(values) <= set(_WORDS["currencies"]) or (
        None if all(re.fullmatch("[A-Z]{3}", each) for each in values) else False
    )


def _of_date(values: Sequence[str]) -> bool | None:
    forms = _date_formats(values)  # seconds are digits, as many other things are
    return any(not form.startswith("unix") for form in forms) or (None if forms else False)


def _of_card(values: Sequence[str]) -> bool | None:
    if not all(re.fullmatch(r"[\w\s-]*\d[\w\s-]*", value) for value in values):
        return False
    digits = [re.sub(r"[\s-]", "", value) for value in values]
    return (len(digits) > 2 and all(len(each) > 11 and each.isdigit() and _luhn(each) for each in digits)) or None


_SHAPES = {
    "order.emailAddress": lambda values: all("@" in value for value in values),
    "order.currency": _of_currency,
    "order.date": _of_date,
    "order.orderNumber": lambda values: False if any("@" in value for value in values) else None,
    "order.loyaltyCardNumber": _of_card,
}


def _luhn(digits: str) -> bool:
    doubled = (int(each) * (1 + at % 2) for at, each in enumerate(reversed(digits)))
    return sum(each - 9 if each > 9 else each for each in doubled) % 10 == 0


def _date_formats(values: Sequence[str]) -> list[str]:
    """Those by which all values are moments of this century."""
    return [form for form in _DATES if all("2000" <= each < "2100" for each in _moments(values, form))]


def _moments(values: Sequence[str], form: str) -> Iterator[str]:
    rules = Dates(formats=(form,))
    for value in values:
        try:
            yield moment(value, rules)
        except ValueError:
            yield ""


def _is_number(value: str, rules: Numbers) -> bool:
    try:
        return bool(number(value, rules)) or True
    except ValueError:
        return False


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
    return [each for each in rules if all(_is_number(value, each) for value in values)]


def _writing(chosen: dict[str, Any], sample: _Sample) -> Iterator[Guess]:
    """How the numbers and dates of the chosen columns are written, and whether rows go without their order's number."""
    values = {name: sample.of(name).get(column, []) for name, column in chosen.items()}
    yield from _of_numbers([value for name in _AMOUNTS for value in values.get(name, ()) if value])
    yield from _of_dates(chosen["order.date"], values["order.date"], sample)
    if types := sorted({value for value in values.get("order.orderType", ()) if value} - {"sale", "return"})[:9]:
        yield Guess("values.orderType", "", "unsure", f"say of {', '.join(types)} which is a sale and which a return")
    numbers = values["order.orderNumber"]
    if sample.of_rows and numbers and numbers[0] and "" in numbers:
        yield Guess("first_row_only", True, "likely", "rows go without a number")


def _of_numbers(amounts: Sequence[str]) -> Iterator[Guess]:
    fitting = _dialects(amounts) if amounts else []
    if len({tuple(number(value, rules) for value in amounts) for rules in fitting}) > 1:
        yield Guess("numbers.decimal", "", "unsure", "150.000 may be thousands: ask, and name the mark, . or ,")
        return
    for name, value in fitting[0].model_dump().items() if fitting else ():
        if value and value != ("minus",):
            yield Guess(
                f"numbers.{name}", list(value) if isinstance(value, tuple) else value, "sure", "nothing else fits"
            )


def _of_dates(column: str, values: Sequence[str], sample: _Sample) -> Iterator[Guess]:
    before = column.rpartition(".")[0]
    for other, times in sample.columns.items():
        beside = sample.of_rows or other.rpartition(".")[0] == before
        both = [f"{date} {time}" for date, time in zip(values, times, strict=False) if date]
        if not (beside and _last(other) in _WORDS["times"] and len(times) == len(values) and _date_formats(values)):
            continue
        if all(len(value) < 12 for value in values) and both and _date_formats(both):
            path = Guess("order.date", f"join(' ', [{column}, {other}])", "likely", "the date, and the time beside it")
            yield Guess("time", other, "likely", "by its name, beside the date") if sample.of_rows else path
            values = both
            break
    dates = [value for value in values if value]
    if not (forms := _date_formats(dates) if dates else []):
        return
    if len({tuple(_moments(dates, form)) for form in forms}) > 1:
        yield Guess(
            "dates.formats", "", "unsure", f"{json.dumps(forms)[1:-1]} would all fit: ask, and list the right one"
        )
    else:
        yield Guess("dates.formats", forms[:1], "sure", f"all {len(dates)} fit it")
    if not re.search(r"[+-]\d\d:?\d\d$|Z$|\)/$", dates[0]) and not forms[0].startswith("unix"):
        yield Guess("dates.zone", "", "unsure", "they have no offset: name their zone, such as Europe/Berlin")
