"""What the SDK would not show: bytes on the wire (service-bus.md, points 2, 5, 7 and 9)."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest
from azure.servicebus._pyamqp._decode import decode_frame
from azure.servicebus._pyamqp._encode import encode_frame
from azure.servicebus._pyamqp.endpoints import Source, Target
from azure.servicebus._pyamqp.outcomes import Accepted
from azure.servicebus._pyamqp.performatives import (
    AttachFrame,
    BeginFrame,
    CloseFrame,
    DetachFrame,
    DispositionFrame,
    FlowFrame,
    OpenFrame,
    TransferFrame,
)

from sandbox.servicebus import ServiceBusStandIn

OPEN, BEGIN, ATTACH, FLOW, DISPOSITION, DETACH, CLOSE = 16, 17, 18, 19, 21, 22, 24


def make(performative: Any, **fields: Any) -> Any:
    """A performative with None in every field not named."""
    return performative(**{**dict.fromkeys(performative._fields), **fields})


class RawClient:
    """Frames as the SDK writes and reads them, without its state machines."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=5)
        self._stream = self.socket.makefile("rb")

    def close(self) -> None:
        self._stream.close()
        self.socket.close()

    def send(self, frame: Any, channel: int = 0) -> None:
        head, body = encode_frame(frame)
        self.socket.sendall(head + struct.pack(">H", channel) + body)

    def read(self) -> tuple[int, list[Any], int]:
        """The next frame: performative, fields padded by the SDK, and how many fields were really there."""
        size = struct.unpack(">I", self._stream.read(4))[0]
        body = self._stream.read(size - 4)[4:]
        code, fields = decode_frame(memoryview(body))
        count = body[5] if body[3] == 0xC0 else struct.unpack(">I", body[8:12])[0]
        return code, fields, count

    def exactly(self, count: int) -> bytes:
        return self._stream.read(count)

    def open(self) -> None:
        self.socket.sendall(b"AMQP\x00\x01\x00\x00")
        assert self.exactly(8) == b"AMQP\x00\x01\x00\x00"
        self.send(make(OpenFrame, container_id="raw", hostname="h", max_frame_size=4096))
        self.send(make(BeginFrame, next_outgoing_id=0, incoming_window=100, outgoing_window=100, handle_max=255))


@pytest.fixture
def raw(bus: ServiceBusStandIn) -> Iterator[RawClient]:
    client = RawClient(bus.port)
    yield client
    client.close()


def attach(handle: int, address: str, *, receiver: bool) -> AttachFrame:
    source, target = (address, "here") if receiver else ("here", address)
    return make(AttachFrame,
        name=f"link-{handle}", handle=handle, role=receiver, send_settle_mode=0, rcv_settle_mode=1,
        source=Source(address=source), target=Target(address=target), initial_delivery_count=0,
    )  # fmt: skip


def test_open_and_begin_come_with_all_fields_frame_size_and_handle_max(raw: RawClient) -> None:
    raw.open()
    code, fields, count = raw.read()
    assert (code, count, fields[2]) == (OPEN, 10, 65536)
    code, fields, count = raw.read()
    assert (code, count, fields[0], fields[4]) == (BEGIN, 8, 0, 4294967295)


def test_a_refusal_is_an_attach_without_termini_and_a_detach_with_all_fields_of_the_error(raw: RawClient) -> None:
    raw.open()
    raw.send(attach(1, "amqps://host/orders/Subscriptions/orderprocessing", receiver=True))
    raw.read(), raw.read()
    code, fields, count = raw.read()
    assert (code, count, fields[5], fields[6]) == (ATTACH, 14, None, None)
    code, fields, count = raw.read()
    condition, description, info = fields[2]
    assert (code, count, fields[1]) == (DETACH, 3, True)
    assert (condition, bool(description), info) == (b"amqp:unauthorized-access", True, {})


def test_an_attach_is_echoed_with_its_termini_delivery_count_and_message_size(raw: RawClient) -> None:
    raw.open()
    raw.send(attach(1, "$cbs", receiver=True))
    raw.send(attach(2, "$cbs", receiver=False))
    raw.read(), raw.read()
    code, fields, count = raw.read()
    assert (code, count, fields[2], fields[5][0], fields[9]) == (ATTACH, 14, False, b"$cbs", 0)
    assert fields[10] >= 1_000_000
    code, fields, count = raw.read()
    assert (code, fields[2], fields[6][0]) == (ATTACH, True, b"$cbs")
    code, fields, count = raw.read()
    assert (code, count, fields[4]) == (FLOW, 11, 2)
    assert fields[6] > 0


def test_frames_of_unknown_channels_and_links_mean_nothing(raw: RawClient) -> None:
    raw.open()
    raw.send(make(DetachFrame, handle=5, closed=True, error=None))
    raw.send(make(DetachFrame, handle=5, closed=True, error=None), channel=9)
    raw.send(make(TransferFrame, handle=7, delivery_id=1, delivery_tag=b"t", settled=True, more=False, payload=b""))
    raw.send(make(CloseFrame))
    assert [raw.read()[0] for _ in range(3)] == [OPEN, BEGIN, CLOSE]
    assert raw.exactly(1) == b""


def test_settling_an_unknown_delivery_is_answered_with_a_lost_lock(raw: RawClient) -> None:
    raw.open()
    raw.send(make(DispositionFrame, role=True, first=41, last=None, settled=False, state=Accepted(), batchable=None))
    raw.read(), raw.read()
    code, fields, count = raw.read()
    assert (code, count) == (DISPOSITION, 6)
    role, first, last, settled, state, _ = fields
    assert (role, first, last, settled) == (False, 41, 41, True)
    condition, description, info = state["rejected"][0]
    assert (condition, bool(description), info) == (b"com.microsoft:message-lock-lost", True, {})


def test_a_flow_that_asks_for_an_echo_gets_one(raw: RawClient) -> None:
    raw.open()
    window = {"next_incoming_id": 0, "incoming_window": 10, "next_outgoing_id": 0, "outgoing_window": 10}
    raw.send(make(FlowFrame, **window, echo=True))
    raw.read(), raw.read()
    code, fields, count = raw.read()
    assert (code, count, fields[4]) == (FLOW, 11, None)


@pytest.mark.parametrize(
    "garbage",
    [
        b"\xff\xff\xff\xff\x02\x00\x00\x00",
        b"\x00\x00\x00\x0c\x02\x00\x00\x00\x00\x53\x14\x99",
        b"\x00\x00\x00\x0d\x02\x00\x00\x00\x00\x53\x12\xc0\xff",
        b"\x00\x00\x00\x09\x02\x00\x00\x00\x40",
    ],
    ids=["a huge frame", "an unknown type", "a truncated list", "no performative"],
)
def test_bytes_that_are_no_amqp_close_their_connection_and_no_other(
    bus: ServiceBusStandIn, raw: RawClient, garbage: bytes
) -> None:
    raw.open()
    raw.socket.sendall(garbage)
    raw.read(), raw.read()
    code, fields, _ = raw.read()
    assert (code, fields[0][0]) == (CLOSE, b"amqp:decode-error")
    assert raw.exactly(1) == b""
    other = RawClient(bus.port)
    other.open()
    assert other.read()[0] == OPEN
    other.close()


def test_an_unknown_protocol_version_is_answered_with_the_supported_one(raw: RawClient) -> None:
    raw.socket.sendall(b"AMQP\x00\x00\x09\x01")
    assert raw.exactly(8) == b"AMQP\x03\x01\x00\x00"
    assert raw.exactly(1) == b""


def test_a_client_with_an_idle_time_out_gets_heartbeats(raw: RawClient) -> None:
    raw.socket.sendall(b"AMQP\x00\x01\x00\x00")
    raw.exactly(8)
    raw.send(make(OpenFrame, container_id="raw", hostname="h", idle_timeout=100))
    assert raw.read()[0] == OPEN
    assert raw.exactly(16) == b"\x00\x00\x00\x08\x02\x00\x00\x00" * 2
