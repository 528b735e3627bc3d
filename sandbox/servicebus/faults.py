"""The faults a test can order (service-bus.md, point 11).

Set at construction and over HTTP (`PUT /sandbox/faults`); setting them starts all counting anew. Without any, the
broker behaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from sandbox.servicebus.errors import FaultRefused

LOCK_LOST = "com.microsoft:message-lock-lost"


@dataclass
class Faults:
    """The knobs; a default switches the fault off.

    Attributes:
        lock_seconds: length of every new or renewed lock, instead of the entity's LockDuration.
        latency_seconds: how long everything the broker sends is held back, per reply, in order.
        refuse_next_settles: the next n settlements are refused; counts down.
        refuse_every_settle: every n-th settlement is refused.
        refusal: the AMQP condition of a refusal. With com.microsoft:message-lock-lost the lock is really lost: the
            message is free at once, with one delivery more. With any other (com.microsoft:server-busy,
            amqp:internal-error ...) it stays locked, and the SDK tries again through the management link.
        drop_after_transfers: after n deliveries the connection that got the last one is cut behind it.
        drop_after_frames: after n frames from clients the connection of the last one is cut; it is not acted upon.
        drop_after_settles: the n-th settlement is applied and on disk, and the connection is cut instead of the reply.
        drop_after_sends: the n-th accepted send is on disk, and the connection is cut instead of the reply.
        drops: how many connections are cut in all before the drop_after knobs rest; None for no end.
        refuse_peeks: with 1, every peek is refused.
        deliver_twice_next: the next n deliveries come a second time, with another lock; counts down.
        deliver_twice_every: every n-th delivery comes a second time.
    """

    lock_seconds: float | None = None
    latency_seconds: float = 0.0
    refuse_next_settles: int = 0
    refuse_every_settle: int = 0
    refusal: str = LOCK_LOST
    drop_after_transfers: int = 0
    drop_after_frames: int = 0
    drop_after_settles: int = 0
    drop_after_sends: int = 0
    drops: int | None = 1
    refuse_peeks: int = 0
    deliver_twice_next: int = 0
    deliver_twice_every: int = 0
    _counted: dict[str, int] = field(default_factory=dict, init=False, repr=False, compare=False)

    @classmethod
    def of(cls, knobs: Faults | Mapping[str, Any] | None) -> Faults:
        """Faults from a mapping of knobs; what is not named is off.

        Raises:
            FaultRefused: for a knob that does not exist or a value it cannot have.
        """
        if isinstance(knobs, Faults):
            return cls(**knobs.as_dict())
        if knobs is not None and not isinstance(knobs, Mapping):
            raise FaultRefused("Faults are a JSON object of knobs.")
        kinds = {each.name: each.type for each in fields(cls) if each.init}
        for name, value in (knobs or {}).items():
            if name not in kinds:
                raise FaultRefused(f"There is no fault knob {name!r}; there are {', '.join(kinds)}.")
            if not _fits(str(kinds[name]), value):
                raise FaultRefused(f"{name} cannot be {value!r}.")
        return cls(**(knobs or {}))

    def as_dict(self) -> dict[str, Any]:
        return {key: value for key, value in asdict(self).items() if not key.startswith("_")}

    def refuses_settle(self) -> bool:
        """Whether the settlement at hand is to be refused."""
        if self.refuse_next_settles > 0:
            self.refuse_next_settles -= 1
            return True
        return self._nth("settles refused", self.refuse_every_settle)

    def delivers_twice(self) -> bool:
        """Whether the delivery at hand is to come a second time."""
        if self.deliver_twice_next > 0:
            self.deliver_twice_next -= 1
            return True
        return self._nth("deliveries doubled", self.deliver_twice_every)

    def drops_after_transfer(self) -> bool:
        return self._drops("transfers", self.drop_after_transfers)

    def drops_after_frame(self) -> bool:
        return self._drops("frames", self.drop_after_frames)

    def drops_after_settle(self) -> bool:
        return self._drops("settles", self.drop_after_settles)

    def drops_after_send(self) -> bool:
        return self._drops("sends", self.drop_after_sends)

    def _drops(self, what: str, after: int) -> bool:
        if not after or self.drops == 0 or not self._nth(what, after):
            return False
        if self.drops is not None:
            self.drops -= 1
        return True

    def _nth(self, what: str, every: int) -> bool:
        if not every:
            return False
        count = self._counted.get(what, 0) + 1
        self._counted[what] = count % every
        return count == every


def _fits(kind: str, value: Any) -> bool:
    if value is None:
        return "None" in kind
    if isinstance(value, bool):
        return False
    if kind.startswith("str"):
        return isinstance(value, str)
    allowed = (int, float) if kind.startswith("float") else (int,)
    return isinstance(value, allowed) and value >= 0
