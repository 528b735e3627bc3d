"""A source's adapter as one file declares it: how what an ERP writes becomes the order document (contracts.md 1).

A declaration is strict. What does not match it is refused: a column that is not there, a number in another dialect, a
date in no declared format. docs/adapters.md is made from the descriptions below.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import jmespath
import yaml
from jmespath.exceptions import JMESPathError
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.alias_generators import to_camel

from include.instore.model.identifiers import did_you_mean, known_codec, known_trailer, known_zone
from include.instore.model.orders import InStoreOrder, OrderLine

ORDER_FIELDS = tuple(to_camel(name) for name in InStoreOrder.model_fields if name != "lines")
LINE_FIELDS = tuple(to_camel(name) for name in OrderLine.model_fields)
REQUIRED = ("orderNumber", "date", "storeId", "currency", "total")
NAMED_FORMATS = ("iso", "unix", "unix_ms")
"""Dates that are no ``strptime`` format: ISO 8601 or /Date(ms+0200)/; seconds and milliseconds since 1970."""


def _date_format(text: str) -> str:
    if text in NAMED_FORMATS:
        return text
    day = datetime(2026, 11, 24, tzinfo=timezone.utc)
    try:
        whole = datetime.strptime(day.strftime(text), text).date() == day.date()  # noqa: DTZ007
    except ValueError:
        whole = False
    if not whole:
        raise ValueError(
            f"{text} is not a format of a whole date, such as %d.%m.%Y, %d.%m.%Y %H:%M or {', '.join(NAMED_FORMATS)}"
        )
    return text


def _known(fields: tuple[str, ...]) -> Callable[[dict[str, Any]], dict[str, Any]]:
    def check(chosen: dict[str, Any]) -> dict[str, Any]:
        for name in chosen:
            if name not in fields:
                raise ValueError(f"{name} is not known{did_you_mean(name, fields)}")
        return chosen

    return check


_OrderMap = Annotated[dict[str, str], AfterValidator(_known(ORDER_FIELDS))]
_LineMap = Annotated[dict[str, str], AfterValidator(_known(LINE_FIELDS))]
_ValueMap = Annotated[dict[str, dict[str, str]], AfterValidator(_known(ORDER_FIELDS))]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Numbers(_Strict):
    """How amounts and quantities are written in text. JSON numbers are what they are."""

    decimal: Literal[".", ","] = Field(".", description="Decimal mark.")
    thousands: Literal["", ".", ",", " ", "'"] = Field(
        "", description="What stands between groups of three digits; empty: nothing may."
    )
    currency_signs: tuple[str, ...] = Field((), description="Signs that may stand before or behind, such as € or kr.")
    negative: tuple[Literal["minus", "trailing_minus", "parentheses"], ...] = Field(
        ("minus",), description="How a negative amount is written: -5, 5- or (5)."
    )

    @model_validator(mode="after")
    def _apart(self) -> Numbers:
        if self.decimal == self.thousands:
            raise ValueError("decimal and thousands are the same mark")
        return self


class Dates(_Strict):
    """How dates are written. A date that fits two formats with two meanings is refused."""

    formats: tuple[Annotated[str, AfterValidator(_date_format)], ...] = Field(
        ("iso",),
        description="All formats there are: Python's strptime, such as %d.%m.%Y; iso: ISO 8601 or .NET's "
        "/Date(1571234567890+0200)/; unix and unix_ms: seconds and milliseconds since 1970.",
    )
    zone: Annotated[str, AfterValidator(known_zone)] | None = Field(
        None, description="Time zone of dates without an offset; empty: INSTORE_STORE_TIMEZONE, counted as a warning."
    )


class Declaration(_Strict):
    """One source: a kind of file, or the messages of the topic."""

    name: str = Field(
        "", max_length=64, description="What the quarantine calls the adapter; empty: its file's name without ending."
    )
    format: Literal["csv", "json", "json_lines", "parquet", "xml"] = Field(
        description="csv: rows, between whose columns stands , ; tab or |; parquet: such rows. Messages are json. It "
        "counts, not the ending of the file's name, beneath .gz and .zip."
    )
    encoding: Annotated[str, AfterValidator(known_codec)] = Field(
        "utf-8-sig", description="Text encoding; XML says its own, and JSON in UTF-16 shows it."
    )
    delimiter: str = Field(
        "", max_length=1, description="csv: what stands between columns; empty: as the heading shows."
    )
    title_lines: int = Field(0, ge=0, le=100, description="csv: lines before the one with the columns' names.")
    trailer: Annotated[str, AfterValidator(known_trailer)] = Field(
        "",
        description="csv, json_lines: the file's last line, such as a row of sums, as INSTORE_EXTRACT_TRAILER, which "
        "counts where this is empty; its `sum` is written as `numbers` says.",
    )
    first_row_only: bool = Field(
        False, description="csv: only an order's first row has its number; the rows beneath leave it empty."
    )
    orders: str = Field(
        "",
        description="Documents: JMESPath to the order, or to the array of orders, in a message or file, such as "
        "`message.order`; empty: it is the order, or an array of them. xml: the name of an order's element.",
    )
    blob: str = Field(
        "",
        description="Messages that are a pointer to their order: JMESPath to the name, below the folder of connection "
        "instore_extracts, of the blob that holds it; all else is of the blob's document. Have INSTORE_EXTRACT_GLOB "
        "leave these blobs out.",
    )
    lists: tuple[str, ...] = Field(
        (), description="xml: names of elements that may come more than once; one that comes once is a list as well."
    )
    order: _OrderMap = Field(
        default_factory=dict,
        description="Field of the order → the column's heading; in documents a JMESPath from the order. Empty: the "
        "document is an order document already.",
    )
    more: dict[str, str] = Field(
        default_factory=dict,
        description="The same for fields of your own, such as `tillId`, which the payload gets.",
    )
    lines_file: str = Field(
        "",
        description="csv: the lines are in another file of the same .zip, whose name fits this, such as `*_lines.csv`; "
        "`order` and `time` name headings of the one file, `lines` of the other. Files in a folder are never joined: "
        "nobody can tell when both are whole.",
    )
    key: tuple[str, ...] = Field(
        (), description="With `lines_file`: the heading of an order's key in its own file, and in that of the lines."
    )
    time: str = Field(
        "", description="csv: heading of the time of day, where the date has a column of its own; `dates` is of both."
    )
    lines_at: str = Field("", description="Documents: JMESPath from the order to its lines.")
    lines: _LineMap = Field(
        default_factory=dict,
        description="Field of a line → the column's heading; in documents a JMESPath from it.",
    )
    optional: tuple[str, ...] = Field((), description="csv: headings that a file may be without.")
    constants: _OrderMap = Field(default_factory=dict, description="Field of the order → its value in every order.")
    values: _ValueMap = Field(
        default_factory=dict,
        description="Field of the order → what the ERP writes → what it means, such as `orderType: {Gutschrift: "
        "return}`; any other value is refused.",
    )
    numbers: Numbers | None = Field(None, description="How numbers in text are written; empty: 1234.50.")
    dates: Dates | None = Field(None, description="How dates are written; empty: ISO 8601.")
    code: str = Field(
        "",
        description="Python file beside this one with `def order_of(document: dict) -> dict`, which is given the "
        "mapped order document and returns what it is to be.",
    )

    @property
    def is_rows(self) -> bool:
        return self.format in ("csv", "parquet")

    @model_validator(mode="after")
    def _whole(self) -> Declaration:
        self._check_fields()
        self._check_headings()
        if self.format == "xml" and not self.orders:
            raise ValueError("orders is needed: the name of the element that is one order")
        if not self.is_rows:
            self._check_paths()
            if self.lines and not self.lines_at:
                raise ValueError("lines_at is needed: where in the order its lines are")
        return self

    def _check_fields(self) -> None:
        given = {*self.order, *self.constants}
        if not self.order and (self.is_rows or self.lines or self.more):
            raise ValueError("order is empty; name at least where its required fields are")
        if missing := [name for name in REQUIRED if self.order and name not in given and not self.code]:
            raise ValueError(f"order has no {missing[0]}, which every order needs; name where it is, or a constant")
        if twice := self.order.keys() & self.constants.keys():
            raise ValueError(f"{min(twice)} is in order and in constants; leave one out")
        if wrong := [name for name in self.more if to_camel(name) != name or name in (*ORDER_FIELDS, *LINE_FIELDS)]:
            raise ValueError(f"more.{wrong[0]} is not a name of your own in camelCase, such as tillId")

    def _check_headings(self) -> None:
        if self.time and not (self.is_rows and "date" in self.order):
            raise ValueError(
                "time is a heading beside that of order.date; in documents join('T', [date, time]) is both"
            )
        in_two_files = (bool(self.lines_file), len(self.key) == 2)
        if any(in_two_files) and not (all(in_two_files) and self.format == "csv" and self.lines):
            raise ValueError("lines_file, key with two headings, and lines belong together, for format csv")
        headings = {*self.order.values(), *self.more.values(), *self.lines.values(), self.time}
        if unknown := set(self.optional) - headings:
            raise ValueError(f"optional names {min(unknown)}, which no field is mapped to")
        if self.blob and self.format != "json":
            raise ValueError("blob is of messages, whose format is json")

    def _check_paths(self) -> None:
        paths = {"orders": self.orders, "blob": self.blob, "lines_at": self.lines_at}
        for part, fields in (("order", self.order), ("more", self.more), ("lines", self.lines)):
            paths |= {f"{part}.{name}": path for name, path in fields.items()}
        for name, path in paths.items():
            try:
                if path:
                    jmespath.compile(path)
            except JMESPathError as error:
                raise ValueError(f"{name} is not JMESPath: {str(error).splitlines()[0]}") from None


def load_declaration(path: str) -> Declaration:
    """The declaration in a YAML file, whose ``code`` is the path of its file.

    :raises ValueError: it cannot be read or is wrong; one sentence a fault.
    """
    file = Path(path)
    try:
        return _loaded(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror})") from None


@lru_cache(maxsize=64)  # the same one is asked for with every file and block
def _loaded(file: Path, _changed: int) -> Declaration:
    try:
        content = yaml.load(file.read_text(encoding="utf-8-sig"), _Plain)  # noqa: S506  a safe loader
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{file.name} is not YAML: {' '.join(str(error).split())[:200]}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{file.name} has no declaration, such as `format: csv`")
    try:
        said = {name: value for name, value in content.items() if value != ""}
        declared = Declaration.model_validate({"name": file.stem, **said})
    except ValidationError as error:
        faults = [_fault(each) for each in error.errors(include_input=False, include_url=False)]
        raise ValueError(f"{file.name}: {'. '.join(faults)}") from None
    if declared.code:
        declared = declared.model_copy(update={"code": str(file.parent.resolve() / declared.code)})
        order_function(declared.code)
    return declared


class _Plain(yaml.BaseLoader):  # type: ignore[misc]
    """Text is text: ``No`` is a heading, and 0404 a store. A name that is there twice is no silent choice."""

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        names = [name.value for name, _ in node.value]
        if twice := [name for name in names if names.count(name) > 1]:
            raise yaml.YAMLError(f"{twice[0]} is there twice, line {node.start_mark.line + 1} and below")
        return super().construct_mapping(node, deep)


@lru_cache(maxsize=64)
def order_function(path: str) -> Callable[[dict[str, Any]], Any]:
    """``order_of`` of a Python file. :raises ValueError: the file cannot be imported, or has no such function."""
    spec = importlib.util.spec_from_file_location(f"instore_adapter_{Path(path).stem}", path)
    try:
        module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
        spec.loader.exec_module(module)  # type: ignore[union-attr]
        return cast(Callable[[dict[str, Any]], Any], module.order_of)
    except Exception as error:
        raise ValueError(f"{path} has no function order_of that can be imported ({type(error).__name__})") from None


_PARTS: Mapping[str, type[BaseModel]] = {"numbers": Numbers, "dates": Dates}


def _fault(fault: Any) -> str:
    where = ".".join(str(part) for part in fault["loc"])
    if fault["type"] == "extra_forbidden":
        *within, name = fault["loc"]
        fields = (_PARTS[within[0]] if within else Declaration).model_fields
        return f"{where} is not known{did_you_mean(str(name), tuple(fields))}"
    said = fault["msg"].removeprefix("Value error, ")
    return f"{where}: {said}" if where else said
