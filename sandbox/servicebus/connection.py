"""One client's connection: protocol headers, SASL, open and close, and the frames of its sessions (AMQP 1.0 part 2,
sections 2.2 to 2.4; part 5, section 5.3; service-bus.md, point 2)."""

from __future__ import annotations

import asyncio
import logging
import struct
import uuid
from collections import deque
from typing import Any

from sandbox.servicebus import frames
from sandbox.servicebus.auth import Permits, SharedKey
from sandbox.servicebus.errors import AmqpError, Malformed
from sandbox.servicebus.namespace import Namespace
from sandbox.servicebus.session import Session

_LOG = logging.getLogger(__name__)

_SASL = 1


class AmqpConnection(asyncio.Protocol):
    """Reads frames, hands them to the sessions, and sends what they answer, once per turn of the loop."""

    def __init__(self, namespace: Namespace, key: SharedKey) -> None:
        self.namespace = namespace
        self.key = key
        self.permits = Permits()
        self.sessions: dict[int, Session] = {}
        self.max_frame_size = frames.MAX_FRAME_SIZE
        self._env = namespace.environment
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._out: list[bytes] = []
        self._flushing = False
        self._held: deque[tuple[float, bytes]] = deque()
        self._release_timer: asyncio.TimerHandle | None = None
        self._heartbeat: asyncio.TimerHandle | None = None
        self._open = False
        self._closing = False

    # asyncio ---------------------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)  # noqa: S101 - for the type checker; a server makes no other
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            self._read()
        except (Malformed, IndexError, ValueError, struct.error, RecursionError) as problem:
            _LOG.warning("A connection sent what is no AMQP (%s): closed.", type(problem).__name__)
            self.close(AmqpError("amqp:decode-error", "The frame cannot be decoded."))

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._closing = True
        self._transport = None
        for timer in (self._heartbeat, self._release_timer):
            if timer is not None:
                timer.cancel()
        for session in self.sessions.values():
            session.abandon()
        self.sessions.clear()

    # Sending ---------------------------------------------------------------------------------------------------------

    def send(self, channel: int, performative: bytes, payload: bytes = b"") -> None:
        """Send a frame with everything else this turn of the loop brings."""
        self._send(frames.frame(channel, performative, payload))

    def close(self, problem: AmqpError | None = None) -> None:
        """Say goodbye and close."""
        if self._open:
            self.send(0, frames.close(problem))
        self._closing = True
        self._flush()

    def drop(self) -> None:
        """Cut the connection behind what was sent so far, without a goodbye: a fault."""
        self._closing = True
        if self._transport is not None:
            self._transport.write(b"".join(self._out))
            self._transport.abort()
        self._out.clear()
        self._held.clear()

    def _send(self, data: bytes) -> None:
        if self._closing:
            return
        self._out.append(data)
        if not self._flushing:
            self._flushing = True
            self._env.loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        data = b"".join(self._out)
        self._out.clear()
        latency = self._env.faults.latency_seconds
        if latency or self._held:
            self._held.append((self._env.loop.time() + latency, data))
            if self._release_timer is None:
                self._release()
        else:
            self._write(data)

    def _release(self) -> None:
        self._release_timer = None
        while self._held and self._held[0][0] <= self._env.loop.time():
            self._write(self._held.popleft()[1])
        if self._held:
            self._release_timer = self._env.loop.call_at(self._held[0][0], self._release)

    def _write(self, data: bytes) -> None:
        if self._transport is None:
            return
        if data:
            self._transport.write(data)
        if self._closing and not self._held:
            self._transport.close()

    # Receiving -------------------------------------------------------------------------------------------------------

    def _read(self) -> None:
        received = self._received
        at = 0
        while len(received) - at >= 8 and not self._closing:
            if received[at : at + 4] == b"AMQP":
                self._on_header(bytes(received[at : at + 8]))
                at += 8
                continue
            size, offset, kind, channel = frames.read_head(received, at)
            if len(received) - at < size:
                break
            body = bytes(received[at + offset : at + size])
            at += size
            if body:
                self._on_frame(kind, channel, body)
        del received[:at]

    def _on_header(self, header: bytes) -> None:
        if header == frames.SASL_HEADER:
            self._send(header + frames.frame(0, frames.sasl_mechanisms(), kind=_SASL))
        elif header == frames.AMQP_HEADER:
            self._send(header)
        else:
            # AMQP 1.0 part 2, section 2.2: answer with what is supported, and close.
            self._send(frames.SASL_HEADER)
            self.close()

    def _on_frame(self, kind: int, channel: int, body: bytes) -> None:
        code, fields, payload = frames.read_performative(body)
        if kind == _SASL:
            if code == frames.SASL_INIT:
                self._send(frames.frame(0, frames.sasl_outcome(), kind=_SASL))
            return
        if self._env.faults.drops_after_frame():
            self.drop()
        elif code == frames.OPEN:
            self._on_open(fields)
        elif code == frames.CLOSE:
            self.close()
        elif not self._open:
            raise Malformed("a frame before open")
        elif code == frames.BEGIN:
            self._on_begin(channel, fields)
        elif code == frames.END:
            session = self.sessions.pop(channel, None)
            if session is not None:
                session.abandon()
                self.send(channel, frames.end())
        else:
            # The SDK ends its session before it detaches: frames of unknown channels mean nothing (point 9).
            known = self.sessions.get(channel)
            if known is not None:
                known.on_frame(code, fields, payload, body)

    def _on_open(self, fields: list[Any]) -> None:
        self._open = True
        self.max_frame_size = min(fields[2] or frames.MAX_FRAME_SIZE, frames.MAX_FRAME_SIZE)
        self.send(0, frames.open_(f"sandbox-{uuid.uuid4()}"))
        if fields[4]:
            self._beat(fields[4] / 2000)

    def _beat(self, seconds: float) -> None:
        """Keep a client with an idle time-out from giving up (section 2.4.5)."""
        self._send(frames.EMPTY_FRAME)
        self._heartbeat = self._env.loop.call_later(seconds, self._beat, seconds)

    def _on_begin(self, channel: int, fields: list[Any]) -> None:
        session = Session(self, channel, next_incoming_id=fields[1] or 0, window=fields[2] or 0)
        self.sessions[channel] = session
        self.send(channel, frames.begin(channel, session.next_outgoing_id))
