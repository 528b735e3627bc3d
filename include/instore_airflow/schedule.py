"""When the DAG runs: by its timetable, and by setting also when messages or extracts wait."""

from __future__ import annotations

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Any

from include.instore.model.errors import ConfigurationError
from include.instore.model.settings import load_settings

if TYPE_CHECKING:
    from airflow.sdk import CronDataIntervalTimetable

_FILES_EVERY = 15.0
"""Seconds: each look is a request for each folder, or page of names, of the storage."""


def or_woken(hourly: CronDataIntervalTimetable) -> Any:
    """The timetable; where ``INSTORE_WAKE_UP`` is on, also what waits: one run takes all that woke it."""
    try:
        settings = load_settings()
    except ConfigurationError:  # which every task tells
        return hourly
    if not settings.runs.wake_up:
        return hourly
    from airflow.sdk import Asset, AssetOrTimeSchedule, AssetWatcher

    from include.instore_airflow.wake_up import ExtractsWait, MessagesWait

    topic, subscription = settings.bus.topic, settings.bus.subscription
    watched: dict[str, Any] = {}
    if settings.runs.use_topic:
        watched[f"messages on {topic}/{subscription}"] = MessagesWait(topic=topic, subscription=subscription)
    if settings.runs.use_extracts:
        watched["extracts that are due"] = ExtractsWait(poll_interval=_FILES_EVERY)
    assets: list[Any] = [
        Asset(name, watchers=[AssetWatcher(name=type(trigger).__name__, trigger=trigger)])
        for name, trigger in watched.items()
    ]
    return AssetOrTimeSchedule(timetable=hourly, assets=reduce(or_, assets)) if assets else hourly
