"""The entities of a namespace, read from Microsoft's emulator's Config.json (service-bus.md, point 0).

The same file starts the emulator. Deviations: a DefaultMessageTimeToLive that is not given means "never" (the emulator
would take PT1H, and orders would vanish over lunch), and the emulator's upper limits are not held, but for a message's
size: 256 KB as in the standard tier, or MaxMessageSizeInKilobytes of a queue or topic as in the premium one. What
duplicate detection has seen is forgotten with the process. EnablePartitioning of a queue or topic, which the emulator
does not know, puts a partition into the sequence numbers. Rule actions are refused at start.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sandbox.servicebus import rules
from sandbox.servicebus.errors import ConfigRefused

DEFAULT_CONFIG_PATH = Path(__file__).with_name("config.json")
DEFAULT_CONFIG: dict[str, Any] = json.loads(DEFAULT_CONFIG_PATH.read_text(encoding="utf-8"))
"""One topic `orders` with one subscription `orderprocessing`."""

STANDARD = 256
"""The largest message, in kilobytes."""

_DURATION = re.compile(
    r"P(?:(?P<days>\d+)D)?(?:T(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d+)?)S)?)?"
)


@dataclass(frozen=True)
class QueueSpec:
    """A queue or a subscription. Durations in seconds; a time to live of None means never; sizes in bytes.

    Attributes:
        duplicates_for: how long a message id is remembered; 0: no duplicate is detected.
    """

    path: str
    lock: float
    max_deliveries: int
    ttl: float | None
    dead_letter_expired: bool
    max_message: int = 1024 * STANDARD
    sessions: bool = False
    partitioned: bool = False
    duplicates_for: float = 0
    forwards_to: str = ""
    forwards_dead_letters_to: str = ""
    matches: rules.Rule = field(default=rules.everything, compare=False)


@dataclass(frozen=True)
class TopicSpec:
    path: str
    ttl: float | None
    max_message: int
    subscriptions: tuple[QueueSpec, ...]
    duplicates_for: float = 0


@dataclass(frozen=True)
class NamespaceSpec:
    queues: tuple[QueueSpec, ...]
    topics: tuple[TopicSpec, ...]


def read_config(config: Mapping[str, Any]) -> NamespaceSpec:
    """The entities a Config.json names.

    Raises:
        ConfigRefused: with the place and the reason, if it is wrong or asks for what the stand-in does not do.
    """
    namespaces = _get(config, "UserConfig", dict, "Config.json").get("Namespaces")
    if not isinstance(namespaces, list) or len(namespaces) != 1 or not isinstance(namespaces[0], dict):
        raise ConfigRefused("UserConfig.Namespaces must hold exactly one namespace.")
    queues = tuple(_queue(each, "", "queue") for each in namespaces[0].get("Queues") or ())
    topics = tuple(_topic(each) for each in namespaces[0].get("Topics") or ())
    paths = [queue.path.lower() for queue in queues] + [topic.path.lower() for topic in topics]
    if not paths:
        raise ConfigRefused("The namespace has neither queues nor topics.")
    if len(set(paths)) < len(paths):
        raise ConfigRefused("Two entities of the namespace have the same name (names compare without case).")
    return NamespaceSpec(queues, topics)


def seconds(text: str, where: str) -> float:
    """An ISO 8601 duration such as PT1M in seconds. Raises ConfigRefused for anything else."""
    match = _DURATION.fullmatch(text)
    if not match or not any(match.groups()):
        raise ConfigRefused(f"{where}: {text!r} is not an ISO 8601 duration such as PT1M.")
    parts = {unit: float(value or 0) for unit, value in match.groupdict().items()}
    return parts["days"] * 86400 + parts["hours"] * 3600 + parts["minutes"] * 60 + parts["seconds"]


def _get(mapping: Any, key: str, kind: type, where: str) -> Any:
    value = mapping.get(key) if isinstance(mapping, Mapping) else None
    if not isinstance(value, kind):
        raise ConfigRefused(f"{where}: {key} is missing or not what it should be.")
    return value


def _topic(entry: Any) -> TopicSpec:
    name = _get(entry, "Name", str, "a topic")
    where = f"topic {name}"
    properties = entry.get("Properties") or {}
    partitioned = bool(properties.get("EnablePartitioning", False))
    subscriptions = tuple(
        replace(_queue(each, f"{name}/Subscriptions/", where), partitioned=partitioned)
        for each in entry.get("Subscriptions") or ()
    )
    names = {spec.path.lower() for spec in subscriptions}
    if len(names) < len(subscriptions):
        raise ConfigRefused(f"{where}: two subscriptions have the same name (names compare without case).")
    window = _duplicates_for(properties, where)
    return TopicSpec(name, _ttl(properties, where), _max_message(properties, where), subscriptions, window)


def _queue(entry: Any, prefix: str, owner: str) -> QueueSpec:
    name = _get(entry, "Name", str, f"an entry of {owner}")
    where = prefix + name
    properties = entry.get("Properties") or {}
    if not isinstance(properties, Mapping):
        raise ConfigRefused(f"{where}: Properties must be an object.")
    most = properties.get("MaxDeliveryCount", 3)
    if not isinstance(most, int) or most < 1:
        raise ConfigRefused(f"{where}: MaxDeliveryCount must be a positive integer.")
    return QueueSpec(
        path=where,
        lock=_duration(properties.get("LockDuration", "PT1M"), f"{where}: LockDuration"),
        max_deliveries=most,
        ttl=_ttl(properties, where),
        dead_letter_expired=bool(properties.get("DeadLetteringOnMessageExpiration", False)),
        max_message=_max_message(properties, where),
        sessions=bool(properties.get("RequiresSession", False)),
        partitioned=bool(properties.get("EnablePartitioning", False)),
        duplicates_for=_duplicates_for(properties, where),
        forwards_to=str(properties.get("ForwardTo") or ""),
        forwards_dead_letters_to=str(properties.get("ForwardDeadLetteredMessagesTo") or ""),
        matches=_rules(entry.get("Rules") or (), where),
    )


def _duplicates_for(properties: Mapping[str, Any], where: str) -> float:
    if not properties.get("RequiresDuplicateDetection"):
        return 0
    name = "DuplicateDetectionHistoryTimeWindow"
    return _duration(properties.get(name, "PT10M"), f"{where}: {name}")


def _max_message(properties: Mapping[str, Any], where: str) -> int:
    kilobytes = properties.get("MaxMessageSizeInKilobytes", STANDARD)
    if not isinstance(kilobytes, int) or kilobytes < 1:
        raise ConfigRefused(f"{where}: MaxMessageSizeInKilobytes must be a positive integer.")
    return 1024 * kilobytes


def _duration(value: Any, where: str) -> float:
    if not isinstance(value, str):
        raise ConfigRefused(f"{where} must be an ISO 8601 duration such as PT1M.")
    return seconds(value, where)


def _ttl(properties: Any, where: str) -> float | None:
    value = properties.get("DefaultMessageTimeToLive")
    return None if value is None else _duration(value, f"{where}: DefaultMessageTimeToLive")


def _rules(entries: Any, where: str) -> rules.Rule:
    read: list[rules.Rule] = [_rule(entry, where) for entry in entries]
    return rules.any_of(read) if read else rules.everything


def _rule(entry: Any, where: str) -> rules.Rule:
    name = _get(entry, "Name", str, f"{where}: a rule")
    place = f"{where}: rule {name}"
    properties = _get(entry, "Properties", dict, place)
    if properties.get("Action"):
        raise ConfigRefused(f"{place}: actions are not supported by this stand-in.")
    kind = str(properties.get("FilterType", "")).lower()
    try:
        if kind == "correlation":
            return rules.correlation(_get(properties, "CorrelationFilter", dict, place))
        if kind == "sql":
            return rules.sql(_get(_get(properties, "SqlFilter", dict, place), "SqlExpression", str, place))
    except rules.RuleRefused as refused:
        raise ConfigRefused(f"{place}: {refused}") from None
    raise ConfigRefused(f"{place}: FilterType must be Correlation or Sql.")
