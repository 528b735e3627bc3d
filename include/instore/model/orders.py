"""The in-store order: what the ERP says of it, checked and made one shape (contracts.md section 1)."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from functools import cache, lru_cache
from json.encoder import encode_basestring_ascii as _quoted
from operator import itemgetter
from typing import Annotated, Any, Literal, NoReturn
from zoneinfo import ZoneInfo

import simplejson
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from include.instore.model.customer_keys import Rules, card_of, email_of
from include.instore.model.errors import RecordRefused
from include.instore.model.identifiers import is_rounded, without_text_mark

_ISO_DATE = re.compile(r"\d{4}-\d{2}-\d{2}")
_OFFSET_APART = re.compile(r"(\d)\s+([+-]\d{2}):?(\d{2})$")
"""As some shops write it: 2026-11-24 09:50:26 +0200."""
_DOT_NET_DATE = re.compile(r"/Date\((-?\d{1,17})(?:([+-]\d{2})(\d{2}))?\)/")
"""Milliseconds since 1970 in UTC; what stands behind them is the offset in which it was told."""
_SINCE_1970 = datetime(1970, 1, 1, tzinfo=timezone.utc)
_THREE_DECIMALS = re.compile(r"[+-]?\d{1,3}\.\d{3}")
_OF_THREE_DECIMALS = ("BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND")
"""Currencies whose amounts have three decimals (ISO 4217)."""
_AMOUNTS = ("unitPrice", "discount", "total")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_BEGINNING = datetime(1, 1, 1, tzinfo=timezone.utc)
_MAX_DEPTH = 64
"""Levels of nesting accepted: what is parsed here is serialised again by others, each with its own recursion limit."""


def _plain_text(value: Any) -> Any:
    """Identifiers end up in keys, URLs and logs: no surrounding blanks, no control characters."""
    if isinstance(value, str):
        value = value.strip()
        if _CONTROL.search(value):
            raise ValueError("holds control characters")
    return value


def _not_rounded(value: Any) -> Any:
    if isinstance(value, bool | float | Decimal):
        raise ValueError("is a number with a fraction or a truth value, not an identifier")
    if is_rounded(value):
        raise ValueError("is a number that a spreadsheet has rounded; have the column written as text")
    return value


def _identifier(value: Any) -> Any:
    if isinstance(value, str):
        value = without_text_mark("".join(each for each in value if unicodedata.category(each) != "Cf").strip())
    return _not_rounded(_plain_text(value))


def _email(value: Any, info: ValidationInfo) -> Any:
    """The address; beside a card a bad one is dropped, since the card says who the customer is."""
    try:
        return email_of(value)
    except ValueError:
        if info.data.get("loyalty_card_number") is None:
            raise
        return None


def _iso_date(value: Any) -> Any:
    # pydantic would read 1496620800 as seconds since 1970; an ERP that sends that is broken, not clever.
    if isinstance(value, str) and (of_dot_net := _DOT_NET_DATE.fullmatch(value.strip())):
        milliseconds, hours, minutes = of_dot_net.groups(default="0")
        offset = timedelta(hours=int(hours), minutes=int(hours[:1] + minutes))
        try:
            moment = _SINCE_1970 + timedelta(milliseconds=int(milliseconds))
            return moment.astimezone(timezone(offset)).isoformat()
        except (ValueError, OverflowError):
            raise ValueError("lies outside the calendar") from None
    if isinstance(value, str) and not _ISO_DATE.match(value.strip()):
        raise ValueError("is not an ISO 8601 date and time")
    if not isinstance(value, str | None):
        raise ValueError("is not an ISO 8601 date and time")
    return _OFFSET_APART.sub(r"\1\2:\3", value.strip()) if isinstance(value, str) else value


def _no_truth_value(value: Any) -> Any:
    if isinstance(value, bool):
        raise ValueError("is a truth value, not a number")
    return value.strip() if isinstance(value, str) else value


_IsoDate = Annotated[datetime, BeforeValidator(_iso_date)]
Identifier = Annotated[str, BeforeValidator(_identifier), Field(min_length=1, max_length=64)]
Amount = Annotated[Decimal, BeforeValidator(_no_truth_value), Field(allow_inf_nan=False)]
Currency = Annotated[Annotated[str, Field(pattern=r"^[A-Za-z]{3}$")], BeforeValidator(_plain_text)]


class _Contract(BaseModel):
    """camelCase on the wire, unknown fields kept, numbers accepted where the ERP should have written a string."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="allow",
        frozen=True,
        coerce_numbers_to_str=True,
        use_attribute_docstrings=True,  # docs/order.schema.json is made of them
    )


class OrderLine(_Contract):
    """One line of an order. Quantity 0 and an empty description are real."""

    product_code: str | None = None
    description: str | None = None
    quantity: Amount | None = None
    unit_price: Amount | None = None
    discount: Amount | None = None
    total: Amount | None = None


class InStoreOrder(_Contract):
    """One order of a store. Names may also be in PascalCase; unknown fields are kept and sent on."""

    order_number: Identifier
    """Number of the order or receipt, as text. A number that a spreadsheet has rounded (1.23E+11) is refused."""
    date: _IsoDate
    """Moment of the purchase with its offset, 2017-06-05T00:04:12Z; without one it is in the reader's time zone."""
    store_id: Identifier
    """Number or code of the store, as text: leading zeros count."""
    store_name: str | None = None
    loyalty_card_number: Annotated[Annotated[str, Field(max_length=64)] | None, BeforeValidator(card_of)] = None
    """The customer's card, as text: leading zeros count, blanks and dashes do not."""
    email_address: Annotated[str | None, BeforeValidator(_email)] = None
    """The customer's address. It is used where there is no card, or where nobody knows the card's customer."""
    currency: Currency
    """ISO 4217, such as EUR."""
    total: Amount
    """Decimal, as text or number; its digits are kept exactly. It may be below zero for a return."""
    order_type: Literal["sale", "return"] = "sale"
    """Without it, an order whose total is below zero is a return."""
    lines: tuple[OrderLine, ...] = ()

    @field_validator("currency")
    @classmethod
    def _upper(cls, value: str) -> str:
        return value.upper()

    @model_validator(mode="before")
    @classmethod
    def _type_from_total(cls, values: Any) -> Any:
        """An order without a type is a return when its total is below zero."""
        given = values.get("orderType")
        if isinstance(given, str):
            given = given.strip().lower()
        if given not in (None, ""):
            return {**values, "orderType": given}
        try:
            below_zero = Decimal(str(values.get("total"))) < 0
        except ArithmeticError:
            below_zero = False  # the field's own check names the fault
        return {**values, "orderType": "return" if below_zero else "sale"}

    def named_by(self, rules: Rules) -> InStoreOrder:
        """The order with its card and email as the settings read them: padded, and none where they are placeholders."""
        card, email = card_of(self.loyalty_card_number, rules), email_of(self.email_address, rules)
        if (card, email) == (self.loyalty_card_number, self.email_address):
            return self
        return self.model_copy(update={"loyalty_card_number": card, "email_address": email})

    def has_offset(self) -> bool:
        """Whether the ERP said which offset the order's date is in."""
        return self.date.tzinfo is not None

    def time(self, store_timezone: str) -> datetime:
        """The order's moment in UTC; a date without offset is in the store's time zone.

        :raises RecordRefused: the moment lies outside the years 1 to 9999.
        """
        local = self.date if self.has_offset() else self.date.replace(tzinfo=ZoneInfo(store_timezone))
        try:
            return local.astimezone(timezone.utc)
        except OverflowError:
            raise RecordRefused("bad_value", "date lies outside the calendar") from None

    def payload(self) -> str:
        """The order as camelCase JSON text: its unknown fields kept, decimals as numbers with their exact digits.

        :raises RecordRefused: the order holds text that is not Unicode (lone surrogates).
        """
        # A date without an offset goes out as it came: the wrong hour told with confidence is worse than none.
        document = self.model_dump(by_alias=True, exclude_unset=True)
        document["date"] = self.date.isoformat().replace("+00:00", "Z")
        text: str = simplejson.dumps(document, use_decimal=True, ensure_ascii=False, separators=(",", ":"))
        try:
            text.encode()
        except UnicodeEncodeError:
            raise RecordRefused("bad_value", "holds text that is not Unicode") from None
        return text

    def adds_up(self, tolerance: Decimal = Decimal(0)) -> bool | None:
        """Whether its lines make its total, of a return with either sign; None where they have no totals to tell by.

        :param tolerance: in the order's currency.
        """
        totals = [line.total for line in self.lines]
        if not totals or None in totals:
            return None
        lines = sum((total for total in totals if total is not None), Decimal(0))
        return abs(abs(lines) - abs(self.total)) <= tolerance

    def fingerprint(self) -> str:
        """Equal for two copies of the same order, also where a message and an extract spell it differently."""
        return hashlib.sha256(_canonical(self).encode()).hexdigest()


def _canonical(value: Any) -> str:
    """JSON text of it without what two spellings of one order differ in: absent or null, 1.0 or 1, Z or an offset.

    Ledgers hold hashes of it, so it never changes: names in order, ``", "`` and ``": "`` between, every value a text.
    """
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Decimal):
        if abs(value.adjusted()) >= 64:
            return f'"{value}"'  # an exponent beyond those of the decimal context cannot be normalised
        value = value.normalize()
        return f'"{value:f}"' if "E" in str(value) else f'"{value}"'
    if isinstance(value, _Contract):
        said, named = value.__dict__, _names_in_order(type(value))
        if value.__pydantic_extra__:
            return _canonical(value.__pydantic_extra__ | {head: said[name] for name, head in named})
        pairs = [f'"{head}": {_canonical(said[name])}' for name, head in named if said[name] is not None]
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, Mapping):
        pairs = [f"{_quoted(name)}: {_canonical(inner)}" for name, inner in sorted(value.items()) if inner is not None]
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_canonical, value))}]"
    if isinstance(value, datetime) and value.tzinfo is not None:
        value = value - _BEGINNING
    return _quoted(str(value))


@cache
def _names_in_order(kind: type[_Contract]) -> list[tuple[str, str]]:
    """Of a model's fields, in the order of the names that they have outside, which are the second ones."""
    return sorted(((name, to_camel(name)) for name in kind.model_fields), key=itemgetter(1))


def parse_order(body: bytes, max_bytes: int) -> InStoreOrder:
    """The order in an order document's bytes: UTF-8, with or without byte order mark.

    :raises RecordRefused: with reason not_json, not_an_object, missing_field, bad_value, too_large or
        unsupported_type.
    """
    return order_from_document(parse_document(body, max_bytes))


def parse_document(body: bytes, max_bytes: int) -> Any:
    """What JSON text holds, its numbers with their exact digits.

    :raises RecordRefused: with reason not_json or too_large.
    """
    if len(body) > max_bytes:
        raise RecordRefused("too_large", f"{len(body)} bytes, {max_bytes} are accepted")
    try:
        text = body.decode("utf-8-sig")
        return json.loads(text, parse_float=Decimal, parse_constant=_no_constant, object_pairs_hook=_with_unique_names)
    except UnicodeDecodeError:
        raise RecordRefused("not_json", f"the text is not UTF-8{_looks_like(body)}") from None
    except (ValueError, ArithmeticError) as error:
        position = f" at character {error.pos}" if isinstance(error, json.JSONDecodeError) else ""
        raise RecordRefused("not_json", f"the text is not JSON{position}{_looks_like(body)}") from None
    except RecursionError:
        raise RecordRefused("not_json", "nested too deeply") from None


_LOOKS_LIKE = (
    (b"PK\x03\x04", "a zip file"),
    (b"<", "XML or HTML"),
)


def _looks_like(body: bytes) -> str:
    """What a body is that is no JSON, for the one who has to have it changed."""
    what = next((name for begins, name in _LOOKS_LIKE if body.lstrip().startswith(begins)), "")
    return f": it looks like {what}" if what else ""


def iso_moment(text: str) -> datetime:
    """The date as an order may have it; :raises ValueError: it is none."""
    return _ISO_MOMENT.validate_python(text)


_ISO_MOMENT: TypeAdapter[datetime] = TypeAdapter(_IsoDate)
_NAMES = frozenset(map(to_camel, (*InStoreOrder.model_fields, *OrderLine.model_fields)))


def order_of_payload(payload: str) -> InStoreOrder:
    """The order whose :meth:`InStoreOrder.payload` this is."""
    raw = payload.encode()
    return parse_order(raw, len(raw))


def order_from_document(document: Any, *, thousands_ok: bool = True) -> InStoreOrder:
    """The order in a decoded document, whose names are camelCase or PascalCase.

    :param thousands_ok: False refuses amounts in text that may be thousands, such as 150.000.
    :raises RecordRefused: as :func:`parse_order`.
    """
    if not isinstance(document, Mapping):
        raise RecordRefused("not_an_object", f"a JSON {type(document).__name__}, not an object")
    refuse_references(document)
    if _is_deeper(document, _MAX_DEPTH):
        raise RecordRefused("bad_value", f"nested deeper than {_MAX_DEPTH} levels")
    named = camel_case(document)
    if isinstance(named.get("lines"), list):
        named["lines"] = [camel_case(line) if isinstance(line, Mapping) else line for line in named["lines"]]
    elif named.get("lines", ()) is None:
        del named["lines"]
    if not thousands_ok and (amount := _may_be_thousands(named)):
        raise RecordRefused(
            "bad_value",
            f"{amount} has three digits behind its only point, so it may be in thousands; where it is a fraction, set "
            "INSTORE_THREE_DECIMALS to accept",
        )
    try:
        return InStoreOrder.model_validate(named)
    except ValidationError as error:
        _refuse(error, named)


def refuse_references(document: Mapping[str, Any]) -> None:
    """:raises RecordRefused: a part of the document stands for another: what it means is not there."""
    parts = [document, *(part for part in document.values() if isinstance(part, Mapping))]
    for value in document.values():
        if isinstance(value, list):
            parts += [part for part in value if isinstance(part, Mapping)]
    if reference := next((name for part in parts for name in ("$ref", "$values") if name in part), ""):
        raise RecordRefused(
            "bad_value",
            f"holds {reference}, by which Newtonsoft's serialiser points to another place; have the ERP write whole "
            "documents (PreserveReferencesHandling.None)",
        )


def _may_be_thousands(document: Mapping[str, Any]) -> str:
    """The amount in text that has three digits behind its only point, in a currency that has not."""
    if str(document.get("currency", "")).strip().upper() in _OF_THREE_DECIMALS:
        return ""
    amounts = [("total", document.get("total"))]
    for line in document.get("lines") or ():
        if isinstance(line, Mapping):
            amounts += [(f"{name} of a line", line.get(name)) for name in _AMOUNTS]
    for name, value in amounts:
        if isinstance(value, str) and _THREE_DECIMALS.fullmatch(value.strip()):
            return name
    return ""


def _is_deeper(document: Any, levels: int) -> bool:
    level = [document]
    for _ in range(levels):
        within = (each.values() if isinstance(each, dict) else each for each in level)
        level = [inner for each in within for inner in each if isinstance(inner, (dict, list))]
        if not level:
            return False
    return True


def camel_case(document: Mapping[str, Any]) -> dict[str, Any]:
    """Names with a lower-case first letter. :raises RecordRefused: one is there in both spellings, and they differ."""
    names = _lower_case(tuple(document))
    named = dict(zip(names, document.values(), strict=True))
    return named if len(named) == len(names) else _with_unique_names(list(zip(names, document.values(), strict=True)))


@lru_cache(maxsize=512)  # the lines of all orders have the same
def _lower_case(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name[:1].lower() + name[1:] for name in names)


class UniqueNames(dict[str, Any]):
    """An object of JSON; ``duplicate`` is a name in it with two values, neither null: which is meant is unknown."""

    duplicate = ""

    def __setitem__(self, name: str, value: Any) -> None:
        before = self.get(name)
        if before is not None and value is not None and before != value:
            self.duplicate = name
        if value is not None or name not in self:
            super().__setitem__(name, value)


def _with_unique_names(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) == len(pairs):
        return found
    again = UniqueNames()
    for name, value in pairs:
        again[name] = value
    refuse_contradictions(again)
    return dict(again)


def refuse_contradictions(document: Any) -> None:
    """:raises RecordRefused: an object in the document, made of :class:`UniqueNames`, says two things."""
    if isinstance(document, UniqueNames) and document.duplicate:
        name = document.duplicate if document.duplicate in _NAMES else "a field"
        raise RecordRefused("bad_value", f"{name} is there twice, with different values")
    for part in document.values() if isinstance(document, dict) else document if isinstance(document, list) else ():
        refuse_contradictions(part)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def _refuse(error: ValidationError, document: Mapping[str, Any]) -> NoReturn:
    """Say which field broke which rule, never its value."""
    faults = error.errors(include_url=False, include_context=False)
    for fault in faults:
        if fault["type"] == "missing" or (len(fault["loc"]) == 1 and document.get(str(fault["loc"][0])) in (None, "")):
            raise RecordRefused("missing_field", f"{_path(fault['loc'])} is required") from None
    for fault in faults:
        if fault["loc"][:1] == ("orderType",):
            raise RecordRefused("unsupported_type", "orderType is neither sale nor return") from None
    raise RecordRefused("bad_value", f"{_path(faults[0]['loc'])}: {faults[0]['msg']}") from None


def _path(location: tuple[int | str, ...]) -> str:
    return ".".join(str(part) for part in location)
