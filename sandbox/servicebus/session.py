"""One session of a connection: its links, its windows, and the deliveries it has not settled (AMQP 1.0 part 2,
sections 2.5 and 2.6; service-bus.md, points 5, 7 and 9)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from sandbox.servicebus import codec, frames
from sandbox.servicebus.auth import Permits, SharedKey
from sandbox.servicebus.codec import NULL, Described
from sandbox.servicebus.errors import AmqpError, LockLost, Malformed
from sandbox.servicebus.links import Inlet, Link, Outlet, ReplyOutlet, RequestInlet, SessionOutlet
from sandbox.servicebus.model import Outcome, Settles
from sandbox.servicebus.namespace import CBS, MANAGEMENT_SUFFIX, Namespace, plain_address
from sandbox.servicebus.sessions import SessionQueue

_SESSION_WAIT = 60_000
"""Milliseconds a receiver waits for a session where it does not say how long."""
_TICKS_1970 = 621_355_968_000_000_000
"""Of 100 ns each, since the year 1: how .NET counts, and when a session's lock ends."""


class _Delivery(NamedTuple):
    """A delivery the client has not settled."""

    handle: int
    queue: Settles
    token: bytes


class Connection(Protocol):
    """What a session sees of its connection."""

    key: SharedKey
    namespace: Namespace
    permits: Permits
    max_frame_size: int

    @property
    def sessions(self) -> Mapping[int, Session]: ...

    def send(self, channel: int, performative: bytes, payload: bytes = b"") -> None: ...

    def drop(self) -> None: ...


class Session:
    """Hands frames to links and settles deliveries.

    Args:
        connection: where the frames come from and go to.
        channel: the channel number, the same in both directions.
        next_incoming_id: the client's first transfer id.
        window: how many transfers the client takes.
    """

    def __init__(self, connection: Connection, channel: int, *, next_incoming_id: int, window: int) -> None:
        self.connection = connection
        self.environment = connection.namespace.environment
        self.next_outgoing_id = 0
        self.window = window
        self.links: dict[int, Link] = {}
        self._channel = channel
        self._next_incoming_id = next_incoming_id
        self._next_delivery_id = 0
        self._unsettled: dict[int, _Delivery] = {}

    def on_frame(self, code: int, fields: list[Any], payload: bytes, body: bytes) -> None:
        if code == frames.DISPOSITION:
            self._on_disposition(fields)
        elif code == frames.TRANSFER:
            self._next_incoming_id += 1
            link = self.links.get(fields[0])
            if link is not None:
                link.on_transfer(fields, payload)
        elif code == frames.FLOW:
            self._on_flow(fields)
        elif code == frames.ATTACH:
            self._on_attach(fields, frames.read_attach_spans(body))
        elif code == frames.DETACH:
            self._on_detach(fields[0])
        else:
            raise Malformed(f"performative 0x{code:02x} inside a session")

    def abandon(self) -> None:
        """The session is over: its links are gone, its deliveries forgotten, their locks stay."""
        for link in self.links.values():
            link.leave()
        self.links.clear()
        self._unsettled.clear()

    # Sending ---------------------------------------------------------------------------------------------------------

    def send(self, performative: bytes) -> None:
        self.connection.send(self._channel, performative)

    def flow(self, handle: int | None = None, *, delivery_count: int = 0, credit: int = 0, drain: bool = False) -> None:
        self.send(
            frames.flow(
                self._next_incoming_id,
                self.next_outgoing_id,
                handle,
                delivery_count=delivery_count,
                credit=credit,
                drain=drain,
            )
        )

    def transfer(self, handle: int, tag: bytes, payload: bytes, *, settled: bool) -> int:
        """Send a delivery, in as many frames as the client's frame size asks for; returns its id."""
        delivery_id = self._next_delivery_id
        self._next_delivery_id = (delivery_id + 1) & 0xFFFFFFFF
        # 64: a transfer's fields take 8 bytes of frame header and less than 50 of their own.
        room = self.connection.max_frame_size - 64
        start = 0
        while start == 0 or start < len(payload):
            part = payload if len(payload) <= room else payload[start : start + room]
            start += room
            head = frames.transfer(handle, delivery_id, tag, settled=settled, more=start < len(payload))
            self.connection.send(self._channel, head, part)
            self.next_outgoing_id = (self.next_outgoing_id + 1) & 0xFFFFFFFF
            self.window -= 1
        return delivery_id

    def remember(self, delivery_id: int, handle: int, queue: Settles, token: bytes) -> None:
        self._unsettled[delivery_id] = _Delivery(handle, queue, token)

    def accept(self, delivery_id: int, problem: AmqpError | None = None) -> None:
        """Tell a sender what became of its delivery; to be called when it is on disk."""
        state = frames.ACCEPTED_STATE if problem is None else frames.rejected(problem)
        self.send(frames.disposition(True, delivery_id, delivery_id, state))

    # Links -----------------------------------------------------------------------------------------------------------

    def _on_attach(self, fields: list[Any], spans: list[bytes]) -> None:
        handle, client_receives = fields[1], bool(fields[2])

        def refuse(refused: AmqpError) -> None:
            link = self.links.pop(handle, None)
            if not isinstance(link, SessionOutlet) or link.session_id is None:
                # The echo of an attach that leads nowhere lacks its termini (section 2.6.3; service-bus.md, point 5).
                self.send(frames.attach(spans, not client_receives, source=NULL, target=NULL, max_message_size=0))
            self.send(frames.detach(handle, refused))

        def echo(source: bytes, properties: bytes = NULL) -> None:
            link = self.links[handle]
            size = link.max_message_size
            self.send(
                frames.attach(
                    spans, not client_receives, source=source, target=spans[6], max_message_size=size,
                    properties=properties,
                )
            )  # fmt: skip
            link.attached()

        def accept(session_id: str, until: int) -> None:
            ticks = codec.long(_TICKS_1970 + 10_000 * until)
            echo(
                frames.with_session(spans[5], session_id),
                codec.map_of(codec.symbol("com.microsoft:locked-until-utc") + ticks, 2),
            )

        try:
            self.links[handle] = self._link(handle, client_receives, fields, accept, refuse)
        except AmqpError as refused:
            refuse(refused)
            return
        link = self.links[handle]
        if isinstance(link, SessionOutlet):
            link.seek()
        else:
            echo(spans[5])

    def _link(
        self, handle: int, client_receives: bool, fields: list[Any],
        accept: Callable[[str, int], None], refuse: Callable[[AmqpError], None],
    ) -> Link:  # fmt: skip
        address = plain_address(_address(fields[5] if client_receives else fields[6]))
        if address.lower() == CBS:
            return ReplyOutlet(self, handle, CBS) if client_receives else RequestInlet(self, handle, CBS)
        if not self.connection.permits.allows(address):
            raise AmqpError("amqp:unauthorized-access", f"Unauthorized access to '{address}': no token was put.", 401)
        namespace = self.connection.namespace
        if address.lower().endswith(MANAGEMENT_SUFFIX):
            entity = namespace.node(address[: -len(MANAGEMENT_SUFFIX)])
            if client_receives:
                return ReplyOutlet(self, handle, address.lower())
            return RequestInlet(self, handle, address.lower(), entity)
        if not client_receives:
            return Inlet(self, handle, namespace.target(address))
        filters = _filters(fields[5]) or {}
        queue = namespace.source(address, in_sessions=frames.SESSION_FILTER in filters)
        if isinstance(queue, SessionQueue):
            wanted, wait = filters[frames.SESSION_FILTER], (fields[13] or {}).get("com.microsoft:timeout")
            seconds = (_SESSION_WAIT if wait is None else wait) / 1000
            return SessionOutlet(self, handle, queue, wanted, seconds, accept, refuse, presettled=fields[3] == 1)
        return Outlet(self, handle, queue, presettled=fields[3] == 1)

    def _on_detach(self, handle: int) -> None:
        link = self.links.pop(handle, None)
        if link is None:
            return
        link.leave()
        self._unsettled = {id_: each for id_, each in self._unsettled.items() if each.handle != handle}
        self.send(frames.detach(handle))

    def _on_flow(self, fields: list[Any]) -> None:
        had_room = self.window > 0
        self.window = (fields[0] or 0) + fields[1] - self.next_outgoing_id
        if fields[4] is not None:
            link = self.links.get(fields[4])
            if link is not None:
                link.on_flow(fields)
        elif fields[9]:
            self.flow()
        if not had_room:
            for each in self.links.values():
                each.window_opened()

    # Settlement ------------------------------------------------------------------------------------------------------

    def _on_disposition(self, fields: list[Any]) -> None:
        client_receives, first, last, settled, state = fields[:5]
        if not client_receives or (state is not None and state.descriptor == frames.RECEIVED):
            return
        last = first if last is None else last
        known = [id_ for id_ in self._unsettled if first <= id_ <= last] if last > first else [first]
        for delivery_id in known:
            delivery = self._unsettled.pop(delivery_id, None)
            self._settle(delivery_id, delivery, state, confirm=not settled)

    def _settle(self, delivery_id: int, delivery: _Delivery | None, state: Any, *, confirm: bool) -> None:
        store, faults = self.environment.store, self.environment.faults
        try:
            if delivery is None:
                raise LockLost
            reply = _apply(delivery, state)
        except AmqpError as refused:
            reply = frames.rejected(refused)
        else:
            if faults.drops_after_settle():
                store.then(self.connection.drop)
                return
        if confirm:
            store.then(lambda: self.send(frames.disposition(False, delivery_id, delivery_id, reply)))


def _apply(delivery: _Delivery, state: Any) -> bytes:
    """Do what a delivery state says; returns the state that confirms it (service-bus.md, point 7)."""
    queue, token = delivery.queue, delivery.token
    code, values = (frames.RELEASED, []) if state is None else (state.descriptor, state.value)
    if code == frames.ACCEPTED:
        queue.settle(token, Outcome.COMPLETED)
        return frames.ACCEPTED_STATE
    if code == frames.MODIFIED:
        failed, elsewhere = (bool(each) for each in (*values, None, None)[:2])
        outcome = Outcome.DEFERRED if elsewhere else Outcome.ABANDONED
        queue.settle(token, outcome, delivery_failed=failed)
        return frames.modified(failed, elsewhere)
    if code == frames.REJECTED:
        queue.settle(token, Outcome.DEAD_LETTERED, *_reasons(values))
        return frames.REJECTED_STATE
    queue.settle(token, Outcome.RELEASED)
    return frames.RELEASED_STATE


def _reasons(values: list[Any]) -> tuple[str | None, str | None]:
    """Reason and description of a dead-lettering, from the info of its error."""
    error = values[0] if values else None
    fields = list(error.value) if isinstance(error, Described) else []
    info = fields[2] if len(fields) > 2 and isinstance(fields[2], dict) else {}
    return info.get("DeadLetterReason"), info.get("DeadLetterErrorDescription")


def _address(terminus: Any) -> str:
    if not isinstance(terminus, Described) or not terminus.value or not isinstance(terminus.value[0], str):
        raise AmqpError("amqp:invalid-field", "A link needs an address.", 400)
    return terminus.value[0]


def _filters(source: Described) -> Any:
    return source.value[7] if len(source.value) > 7 else None
