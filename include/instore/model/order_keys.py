"""Which orders are the same order: those of one key (design.md, "Which orders are the same order")."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo

from pydantic.alias_generators import to_camel

from include.instore.model.errors import RecordRefused
from include.instore.model.identifiers import identity, is_rounded

if TYPE_CHECKING:
    from include.instore.model.orders import InStoreOrder

DAY = "day"
"""The one name of a key that is no field: the order's day in the store's time zone."""

NUMBER_ALONE = ("orderNumber",)
MAX_KEY = 480
"""Characters; the ledger has 512, for what is put to it: see ``set_apart``, ``rekey``."""


@cache  # asked for with every order
def key_fields(setting: str) -> tuple[str, ...]:
    """The fields that ``INSTORE_ORDER_KEY`` names, in camelCase.

    :raises ValueError: one is named twice, or has no name, or is the type, which is always part of the key.
    """
    names = [name.strip() for name in setting.split(",")]
    fields = tuple(to_camel(name) if "_" in name else name[:1].lower() + name[1:] for name in names)
    if not all(fields):
        raise ValueError("names of fields, with a comma between them, such as store_id,day,order_number")
    if len(set(fields)) < len(fields) or "orderType" in fields:
        raise ValueError("each field once, and not the type, which is always part of the key")
    return fields


def order_key(order: InStoreOrder, fields: Sequence[str], store_timezone: str) -> str:
    """The order's key as a JSON array; its last element is the type: a return is not its sale.

    :param fields: as :func:`key_fields` gives them. :raises RecordRefused: one of them is absent, or is no identity.
    """
    document = {"orderNumber": order.order_number} if fields == NUMBER_ALONE else order.model_dump(by_alias=True)
    elements = [
        day_of(order.date, store_timezone) if field == DAY else _element(_value(document, field), field)
        for field in fields
    ]
    key = json.dumps([*elements, order.order_type], ensure_ascii=False)
    if len(key) > MAX_KEY:
        raise RecordRefused("bad_value", f"the fields of its key are longer than {MAX_KEY} characters together")
    return key


def day_of(moment: datetime, store_timezone: str) -> str:
    """The day in the store's time zone, ``2017-06-05``; a moment without an offset is in that zone.

    :raises RecordRefused: the day lies outside the calendar.
    """
    try:
        local = moment.astimezone(ZoneInfo(store_timezone)) if moment.tzinfo else moment
    except OverflowError:
        raise RecordRefused("bad_value", "date lies outside the calendar") from None
    return local.date().isoformat()


def _value(document: Mapping[str, Any], field: str) -> Any:
    """The order's own field; or its lines', where all of them say the same: a row a line has all columns."""
    if document.get(field) is not None:
        return document[field]
    values = [line.get(field) for line in document.get("lines") or ()]
    return values[0] if values and all(value == values[0] for value in values) else None


def _element(value: Any, field: str) -> str:
    if isinstance(value, bool | float | Decimal | list | dict | tuple) or is_rounded(value):
        raise RecordRefused("bad_value", f"{field} is part of the order's key and is no identifier")
    text = identity("" if value is None else str(value))
    if not text:
        raise RecordRefused("missing_field", f"{field} is required, because INSTORE_ORDER_KEY names it")
    return text
