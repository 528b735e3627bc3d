"""What can go wrong in the stand-in, and what happens then.

StandInError                one sentence for whoever starts it; it does not run
|-- ConfigRefused           the Config.json asks for what the stand-in does not do, or is wrong
|-- PortInUse               somebody else listens there
|-- StateRefused            the state file is not ours, or another broker holds it
`-- FaultRefused            an unknown fault knob or an impossible value

Malformed                   the peer sent bytes that are not AMQP: its connection is closed
AmqpError                   an answer on the wire: a condition and a description for the client
|-- LockLost                410 and com.microsoft:message-lock-lost
`-- SessionLockLost         410 and com.microsoft:session-lock-lost
"""

from __future__ import annotations


class StandInError(Exception):
    """The stand-in cannot do what it was told; the text is the whole story."""


class ConfigRefused(StandInError):
    """The Config.json is wrong or asks for something unsupported: start does not happen."""


class PortInUse(StandInError):
    """The port is taken: start does not happen."""


class StateRefused(StandInError):
    """The state file cannot be used: start does not happen."""


class FaultRefused(StandInError):
    """A fault knob does not exist or cannot have this value: nothing was changed."""


class Malformed(Exception):
    """Bytes that are no AMQP 1.0: the connection they came on is closed."""


class AmqpError(Exception):
    """An error the client is told: an AMQP condition, a sentence, and the status code of a management reply."""

    def __init__(self, condition: str, description: str, status: int = 500) -> None:
        super().__init__(f"{condition}: {description}")
        self.condition = condition
        self.description = description
        self.status = status


class LockLost(AmqpError):
    """The lock has expired or was never there (service-bus.md, point 7)."""

    def __init__(self) -> None:
        super().__init__(
            "com.microsoft:message-lock-lost",
            "The lock supplied is invalid. Either the lock expired, or the message has already been removed.",
            410,
        )


class SessionLockLost(AmqpError):
    """The session's lock has expired or was never there: none of its messages can be settled any more."""

    def __init__(self) -> None:
        text = "The session lock has expired on the MessageSession. Accept a new MessageSession."
        super().__init__("com.microsoft:session-lock-lost", text, 410)
