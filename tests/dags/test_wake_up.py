"""What wakes the DAG: off as without it; on, messages and extracts, of which nothing is taken; errors are told."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import AssetAny, AssetOrTimeSchedule, CronDataIntervalTimetable

from include.instore.model.errors import ConfigurationError
from include.instore_airflow.schedule import or_woken
from include.instore_airflow.wake_up import ExtractsWait, MessagesWait
from sandbox.servicebus import ServiceBusStandIn
from tests.alerts.channels import Webhook

RUNBOOK = Path(__file__).parents[2] / "docs/runbook.md"
HOURLY = CronDataIntervalTimetable("0 * * * *", timezone="UTC")
FAST = {"poll_interval": 0.05, "debounce": 0.2}


@pytest.fixture
def folder(tmp_path: Path, connect: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("INSTORE_EXTRACT_MIN_AGE", "0")
    connect("instore_extracts", "fs", extra=json.dumps({"path": str(tmp_path)}))
    return tmp_path


@pytest.mark.parametrize(
    "settings", [{}, {"wake_up": "off"}, {"wake_up": "on", "use_topic": "off", "use_extracts": "0"}]
)
def test_off_or_with_nothing_to_watch_the_schedule_is_the_timetable(
    settings: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in settings.items():
        monkeypatch.setenv(f"INSTORE_{name.upper()}", value)
    assert or_woken(HOURLY) is HOURLY


@pytest.mark.parametrize(("off", "watched"), [("", 2), ("USE_TOPIC", 1), ("USE_EXTRACTS", 1)])
def test_on_each_source_that_is_used_starts_a_run_by_itself(
    off: str, watched: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTORE_WAKE_UP", "on")
    if off:
        monkeypatch.setenv(f"INSTORE_{off}", "off")
    schedule = or_woken(HOURLY)
    assert isinstance(schedule, AssetOrTimeSchedule)
    assert schedule.timetable is HOURLY
    condition = schedule.asset_condition
    assets = condition.objects if isinstance(condition, AssetAny) else [condition]  # any of them is enough
    assert len(assets) == watched
    for asset in assets:
        (watcher,) = asset.watchers
        path, arguments = watcher.trigger.serialize()
        assert json.loads(json.dumps(arguments)) == arguments
        assert path == f"include.instore_airflow.wake_up.{watcher.name}"
        assert type(watcher.trigger)(**arguments).serialize() == (path, arguments)


def test_a_new_or_changed_extract_fires_once_it_is_whole_and_nothing_is_written(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def watch() -> None:
        events = ExtractsWait(**FAST).run()
        assert await _fired(events, 0.5) is None
        await events.aclose()
        events = ExtractsWait(**FAST).run()
        (folder / "2017/06").mkdir(parents=True)
        for name in ("2017/06/a.csv", "b.json", ".hidden", "c.csv.partial"):
            (folder / name).write_text("x")
        assert await _fired(events, 20) == 2
        (folder / "b.json").write_text("xy")
        assert await _fired(events, 20) == 1
        monkeypatch.setenv("INSTORE_EXTRACT_MIN_AGE", "3")
        (folder / "d.csv").write_text("x")
        begun = time.time()
        assert await _fired(events, 20) == 1
        assert time.time() - begun >= 2.5
        (folder / "c.csv.partial").rename(folder / "c.csv")
        assert await _fired(events, 20) == 1
        await events.aclose()

    asyncio.run(watch())
    assert sorted(each.name for each in folder.rglob("*") if each.is_file()) == [
        ".hidden", "a.csv", "b.json", "c.csv", "d.csv",
    ]  # fmt: skip


def test_what_stays_away_is_told_once_and_its_end_as_well(
    tmp_path: Path, webhook: Webhook, connect: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    class Impatient(ExtractsWait):
        told_after = 1.0

    connect("instore_alerts", "alerts", password=webhook.url)
    connect("instore_extracts", "fs", extra=json.dumps({"path": str(tmp_path / "away")}))

    async def watch() -> None:
        fired = asyncio.ensure_future(anext(Impatient(**FAST).run()))
        webhook.answer = 500  # it is told once somebody takes it
        while "did not take" not in caplog.text:
            await asyncio.sleep(0.1)
        webhook.answer = 200
        while len(webhook.told) < 1:
            await asyncio.sleep(0.1)
        await asyncio.sleep(9)  # and another look
        assert webhook.titles == ["no run is woken"]
        (tmp_path / "away").mkdir()
        (tmp_path / "away/a.csv").write_text("x")
        assert (await fired).payload == {"new": 1}
        assert webhook.titles == ["no run is woken", "runs are woken again"]

    asyncio.run(asyncio.wait_for(watch(), 200))
    assert "The extracts folder of connection instore_extracts does not exist" in webhook.told[0]["message"]
    assert "No run is woken" in webhook.told[0]["message"]
    assert "## No run is woken" in RUNBOOK.read_text()


def test_a_refused_key_is_told_in_the_sentence_of_a_drain(connect: Callable[..., None]) -> None:
    with ServiceBusStandIn() as bus:
        wrong = bus.connection_string.replace("SharedAccessKey=", "SharedAccessKey=not")
        connect("instore_service_bus", "service_bus", schema=wrong)
        trigger = MessagesWait(topic="orders", subscription="orderprocessing")
        with pytest.raises(ConfigurationError, match="refused the key of connection instore_service_bus"):
            trigger.look()
        trigger.hang_up()


async def _fired(events: AsyncIterator[Any], seconds: float) -> int | None:
    """How many are new to the next event; None: there is none so soon."""
    waiting = asyncio.ensure_future(anext(events))
    done, _ = await asyncio.wait([waiting], timeout=seconds)
    if done:
        return int(waiting.result().payload["new"])
    waiting.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await waiting
    return None
