"""All entities of the namespace and the addresses they answer to (service-bus.md, point 4)."""

from __future__ import annotations

import logging
from typing import Any
from urllib.parse import urlsplit

from sandbox.servicebus.config import NamespaceSpec
from sandbox.servicebus.errors import AmqpError, ConfigRefused
from sandbox.servicebus.model import DEAD_LETTER_SUFFIX, Environment
from sandbox.servicebus.queues import Queue
from sandbox.servicebus.sessions import SessionQueue, queue_of
from sandbox.servicebus.topics import Topic

_LOG = logging.getLogger(__name__)

CBS = "$cbs"
MANAGEMENT_SUFFIX = "/$management"


def plain_address(address: str) -> str:
    """`amqps://host:port/orders` and `/orders` as `orders`, in the case given."""
    path = urlsplit(address).path if "://" in address else address
    return path.strip("/")


class Namespace:
    """The entities of a Config.json, with the messages the state file holds for them."""

    def __init__(self, spec: NamespaceSpec, environment: Environment) -> None:
        self.environment = environment
        self.queues = [queue_of(each, environment) for each in spec.queues]
        self.topics = [Topic(each, environment) for each in spec.topics]
        self._nodes: dict[str, Queue | Topic] = {}
        for queue in [*self.queues, *(each for topic in self.topics for each in topic.subscriptions)]:
            self._nodes[queue.path.lower()] = queue
            if queue.dead_letter_queue is not None:
                self._nodes[queue.dead_letter_queue.path.lower()] = queue.dead_letter_queue
        self._nodes.update({topic.path.lower(): topic for topic in self.topics})
        for queue in [*self.queues, *(each for topic in self.topics for each in topic.subscriptions)]:
            queue.forwards_to = self._forwarding(queue, queue.spec.forwards_to)
            queue.forwards_dead_letters_to = self._forwarding(queue, queue.spec.forwards_dead_letters_to)
        self._restore()

    def _forwarding(self, queue: Queue, name: str) -> Queue | Topic | None:
        try:
            return self.target(name) if name else None
        except AmqpError:
            raise ConfigRefused(f"{queue.path}: it forwards to {name!r}, which is no queue or topic.") from None

    def node(self, address: str) -> Queue | Topic:
        """The entity at an address, whatever its case.

        Raises:
            AmqpError: amqp:not-found.
        """
        node = self._nodes.get(plain_address(address).lower())
        if node is None:
            raise AmqpError(
                "amqp:not-found", f"The messaging entity '{plain_address(address)}' could not be found.", 404
            )
        return node

    def has(self, path: str) -> bool:
        """Whether a token can be put for a path: the namespace, an entity, or its management node."""
        path = path.removesuffix(MANAGEMENT_SUFFIX)
        return not path or path in self._nodes

    def target(self, address: str) -> Queue | Topic:
        """The entity a sender may send to: a queue or a topic."""
        node = self.node(address)
        path = node.path.lower()
        if path.endswith(DEAD_LETTER_SUFFIX.lower()) or "/subscriptions/" in path:
            raise AmqpError("amqp:not-allowed", f"Messages cannot be sent to '{node.path}'.", 400)
        return node

    def source(self, address: str, *, in_sessions: bool) -> Queue:
        """The entity a receiver may receive from: a queue, a subscription or a dead-letter queue."""
        node = self.node(address)
        if isinstance(node, Topic):
            raise AmqpError("amqp:not-allowed", f"'{node.path}' is a topic: receive from a subscription.", 400)
        text = ""
        if node.forwards_to is not None:
            text = "Cannot create a message receiver on an entity with auto-forwarding enabled."
        elif isinstance(node, SessionQueue) and not in_sessions:
            text = (
                "It is not possible for an entity that requires sessions to create a non-sessionful message receiver."
            )
        elif in_sessions and not isinstance(node, SessionQueue):
            text = "A sessionful message receiver cannot be created on an entity that does not require sessions."
        if text:
            raise AmqpError("amqp:not-allowed", text, 400)
        return node

    def snapshot(self) -> dict[str, Any]:
        """Counts by path, for `/sandbox/state`."""
        entities: dict[str, Any] = {queue.path: queue.snapshot() for queue in self.queues}
        for topic in self.topics:
            entities[topic.path] = topic.snapshot()
            entities.update({queue.path: queue.snapshot() for queue in topic.subscriptions})
        return entities

    def close(self) -> None:
        for queue in self.queues:
            queue.close()
        for topic in self.topics:
            topic.close()

    def _restore(self) -> None:
        homeless = 0
        for row in self.environment.store.rows():
            node = self._nodes.get(row.entity.lower())
            if node is None:
                homeless += 1
            else:
                node.restore(row)
        if homeless:
            _LOG.warning("%d messages in the state file belong to entities the configuration lacks.", homeless)
