"""The messages of one queue in sequence order, whatever their state."""

from __future__ import annotations

import bisect
import heapq
from collections import Counter
from collections.abc import Iterator

from sandbox.servicebus.model import Message, State


class Backlog:
    """Finds the next active message, a message by its number, and all from a number on, each without a search."""

    def __init__(self) -> None:
        self._messages: dict[int, Message] = {}
        # Numbers of removed messages stay in both until they are in the way: that is cheaper than a search for them.
        self._order: list[int] = []
        self._free: dict[str, list[int]] = {}  # by session
        self._states: Counter[State] = Counter()

    def __len__(self) -> int:
        return len(self._messages)

    def count(self, state: State) -> int:
        """How many messages are in a state, the locked ones with them."""
        return self._states[state]

    def get(self, sequence: int) -> Message | None:
        return self._messages.get(sequence)

    def add(self, message: Message) -> None:
        self._messages[message.sequence] = message
        self._states[message.state] += 1
        if not self._order or message.sequence > self._order[-1]:
            self._order.append(message.sequence)
        else:
            bisect.insort(self._order, message.sequence)
        self.free(message)

    def free(self, message: Message) -> None:
        """Nobody holds the message: if it is active, it can be the next again."""
        if message.state is State.ACTIVE:
            heapq.heappush(self._free.setdefault(message.session, []), message.sequence)

    def remove(self, message: Message) -> None:
        del self._messages[message.sequence]
        self._states[message.state] -= 1
        if len(self._order) > 2 * len(self._messages) + 1000:
            self._order = sorted(self._messages)

    def move(self, message: Message, state: State) -> None:
        """Bring a message into another state."""
        self._states[message.state] -= 1
        self._states[state] += 1
        message.state = state

    def pop(self, session: str = "") -> Message | None:
        """The active message with the lowest number that nobody holds; the caller holds it now, or puts it back with
        `free`."""
        free = self._free.get(session, [])
        while free:
            message = self._messages.get(heapq.heappop(free))
            if message is not None and message.state is State.ACTIVE and message.lock is None:
                return message
        return None

    def waiting(self) -> list[str]:
        """The sessions that have an active message which nobody holds."""
        found = []
        for session in list(self._free):
            message = self.pop(session)
            if message is None:
                del self._free[session]
            else:
                self.free(message)
                found.append(session)
        return found

    def start_at(self, sequence: int) -> Iterator[Message]:
        """All messages from a number on."""
        for each in self._order[bisect.bisect_left(self._order, sequence) :]:
            message = self._messages.get(each)
            if message is not None:
                yield message
