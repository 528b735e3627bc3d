"""The SDK's decoder, replaced: what it cannot decode is decoded, or arrives marked; it never raises."""

from __future__ import annotations

import random
from decimal import Decimal

import pytest
from azure.servicebus import VERSION
from azure.servicebus._pyamqp import _decode
from azure.servicebus._pyamqp._encode import encode_decimal128

from include.instore.model.errors import RecordRefused
from include.instore.model.orders import InStoreOrder
from include.instore.sources.adapters import Adapter
from include.instore.sources.bus import body_of, records_of_undecodable
from include.instore.sources.decoding import FITS, decoded, undecodable
from tests.instore import given
from tests.instore.sources import encoded


def ieee(number: str) -> bytes:
    """A decimal128 by the standard, as the SDK itself writes it."""
    output = bytearray()
    encode_decimal128(output, Decimal(number))
    return bytes(output)


def order_of(raw: bytes) -> InStoreOrder | RecordRefused:
    """What a person gets of an undecodable message, whose bytes are kept as they are."""
    (record,) = records_of_undecodable(raw, "m1#1", None, Adapter(given.SETTINGS))
    assert record.raw == raw
    return record.order


def test_the_sdk_still_needs_it() -> None:
    """Where this fails the SDK may be right by itself: then take out of decoding.py what it needs no longer."""
    assert VERSION in FITS
    with pytest.raises(ValueError, match="decimal128"):
        _decode._decode_decimal128(memoryview(ieee("12.50")[1:]))
    with pytest.raises(TypeError):
        _decode.decode_payload(memoryview(encoded.section(encoded.VALUE, encoded.NO_TYPE)))


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (ieee("12.50"), "12.50"),
        (ieee("-0.01"), "-0.01"),
        (ieee("1E+3"), "1E+3"),
        (ieee("12345678901234567890123.4567"), "12345678901234567890123.4567"),
        (encoded.dotnet_decimal(1250, 2), "12.50"),
        (encoded.dotnet_decimal(1250, 0, negative=True), "-1250"),
        (encoded.dotnet_decimal(2**96 - 1, 28), "7.9228162514264337593543950335"),
        (b"\x94\x78" + bytes(15), "Infinity"),
        (b"\x94\xfc" + bytes(15), "-NaN"),
        (b"\x94\x60" + bytes(15), "0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_decimal_is_read_as_it_was_written(written: bytes, read: str) -> None:
    message = decoded(encoded.section(encoded.APPLICATION, encoded.map_of({"x": written})))
    assert undecodable(message) is None
    value = message.application_properties[b"x"]
    assert (str(value), type(value)) == (read, Decimal)


def test_a_char_is_text() -> None:
    message = decoded(encoded.section(encoded.APPLICATION, encoded.map_of({"x": b"\x73\x00\x01\xf6\x00"})))
    assert (undecodable(message), message.application_properties) == (None, {b"x": "\U0001f600".encode()})


@pytest.mark.parametrize("kind", encoded.undecodable("label"))
def test_what_cannot_be_decoded_is_marked_and_keeps_all_of_its_bytes(kind: str) -> None:
    raw = encoded.undecodable("label")[kind]
    mark = undecodable(decoded(raw))
    assert mark is not None
    assert "cannot be decoded" in mark.detail
    again = undecodable(decoded(mark.raw))
    annotations = kind == "an annotation of no type"  # the bus writes them anew on every delivery
    assert again is None if annotations else (again is not None and again.raw == mark.raw == raw)


def test_the_values_beside_the_one_that_cannot_be_decoded_are_known() -> None:
    pairs = {"before": b"\x54\x01", "x": encoded.NO_TYPE, "x-opt-sequence-number": b"\x55\x07"}
    message = decoded(
        encoded.section(encoded.ANNOTATIONS, encoded.map_of(pairs)) + encoded.properties("a label", "m-1")
    )
    assert message.annotations == {b"before": 1, b"x-opt-sequence-number": 7}
    assert message.properties is not None
    assert (message.properties.message_id, message.properties.subject) == (b"m-1", b"a label")


def test_a_person_gets_the_order_of_a_whole_body() -> None:
    read = {kind: order_of(raw) for kind, raw in encoded.undecodable("label").items()}
    orders = {kind for kind, order in read.items() if getattr(order, "order_number", None) == "S1"}
    assert set(read) - orders == {"a list for data", "a body of no type", "a body nested too deep"}
    assert {str(read[kind]).partition(":")[0] for kind in set(read) - orders} == {"undecodable"}


def test_a_body_in_several_sections_is_whole() -> None:
    body = given.body("S1")
    odd = encoded.section(encoded.APPLICATION, encoded.map_of({"x": encoded.NO_TYPE}))
    order = order_of(odd + encoded.data(body[:40]) + encoded.data(body[40:]))
    assert getattr(order, "order_number", None) == "S1"


def test_no_bytes_can_make_it_raise() -> None:
    """Mutated, cut and random messages; the same ones in every run."""
    chance = random.Random(13)
    whole = [*encoded.undecodable("label").values(), encoded.data(b"x") * 3, b"\x00" * 5000, b""]
    marked = 0
    for _ in range(4000):
        raw = bytearray(chance.choice(whole))
        for _ in range(chance.randint(0, 4)):
            if raw:
                raw[chance.randrange(len(raw))] = chance.randrange(256)
        raw = raw[: chance.randint(0, len(raw))] if chance.random() < 0.3 else raw
        message = decoded(bytes(raw))
        if mark := undecodable(message):
            marked += 1
            order_of(mark.raw)
        else:
            body_of(message)
    assert 1000 < marked < 4000
