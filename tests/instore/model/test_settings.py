"""The settings: defaults, what is refused, and that every refusal names the variable."""

from __future__ import annotations

from pathlib import Path

import pytest

from include.instore.model.errors import ConfigurationError
from include.instore.model.settings import SECTION_OF, SECTIONS, load_settings


def test_the_defaults_are_the_original_designs() -> None:
    settings = load_settings()
    assert (settings.events.scope, settings.events.device_id) == ("Default", "InStoreDevice")
    assert (settings.events.event_type, settings.events.event_value) == ("StorePurchase", "StorePurchase")
    assert (settings.events.return_event_type, settings.events.return_event_value) == ("StoreReturn", "StoreReturn")
    assert (settings.bus.topic, settings.bus.subscription) == ("orders", "orderprocessing")
    sending = settings.sending
    assert (sending.enable_track_events, sending.on_ambiguous, sending.bulk_events) == (True, "verify", 100)
    assert (settings.orders.store_timezone, settings.events.max_event_bytes) == ("UTC", 256_000)
    assert settings.runs.max_bad_share == 0.02
    assert (settings.lookups.mapping_file, settings.extracts.extract_columns) == (None, {})


def test_settings_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTORE_SCOPE", "web")
    monkeypatch.setenv("INSTORE_ENABLE_TRACK_EVENTS", "false")
    monkeypatch.setenv("INSTORE_EXTRACT_COLUMNS", '{"Receipt": "order_number"}')
    monkeypatch.setenv("INSTORE_MAPPING_FILE", "/data/cards.csv")
    settings = load_settings()
    assert (settings.events.scope, settings.sending.enable_track_events) == ("web", False)
    assert settings.extracts.extract_columns == {"Receipt": "order_number"}
    assert settings.lookups.mapping_file == Path("/data/cards.csv")


def test_a_runs_own_values_win_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTORE_SCOPE", "web")
    assert load_settings(scope="other").events.scope == "other"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("SCOPE", "x" * 65),
        ("SCOPE", ""),
        ("STORE_TIMEZONE", "Mars/Olympus"),
        ("STORE_TIMEZONE", ""),
        ("STORE_TIMEZONE", "../etc/passwd"),
        ("EXTRACT_ENCODING", "utf-9"),
        ("EXTRACT_ENCODING", "base64"),
        ("DEVICE_ID", "{email}"),
        ("DEVICE_ID", "{}"),
        ("DEVICE_ID", "{"),
        ("DEVICE_ID", "{customer_key.x}"),
        ("DEVICE_ID", "{customer_key[x]}"),
        ("DEVICE_ID", ""),
        ("BULK_EVENTS", "101"),
        ("BULK_EVENTS", "0"),
        ("MAX_BAD_SHARE", "1.1"),
        ("ON_AMBIGUOUS", "guess"),
        ("DRAIN_RECEIVERS", "four"),
        ("ENABLE_TRACK_EVENTS", "maybe"),
        ("EXTRACT_COLUMNS", "{"),
        ("EXTRACT_COLUMNS", "[]"),
    ],
)
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(f"INSTORE_{name}", value)
    with pytest.raises(ConfigurationError, match=f"INSTORE_{name}"):
        load_settings()


def test_a_scope_of_64_characters_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTORE_SCOPE", "x" * 64)
    assert load_settings().events.scope == "x" * 64


def test_an_unknown_variable_is_refused_with_what_was_meant(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTORE_ENABLE_TRACKEVENTS", "false")
    with pytest.raises(ConfigurationError, match=r"INSTORE_ENABLE_TRACKEVENTS is unknown.*INSTORE_ENABLE_TRACK_EVENTS"):
        load_settings()


def test_a_variable_that_is_near_to_nothing_is_pointed_to_the_documentation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTORE_ZZZZZZZZZZZZ", "1")
    with pytest.raises(ConfigurationError, match=r"INSTORE_ZZZZZZZZZZZZ is unknown; docs/configuration.md"):
        load_settings()


def test_no_refusal_tells_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTORE_DRAIN_RECEIVERS", "canary-7f3a")
    with pytest.raises(ConfigurationError) as caught:
        load_settings()
    assert "canary-7f3a" not in str(caught.value)


def test_every_setting_says_what_it_is() -> None:
    fields = [each for section in SECTIONS.values() for each in section.model_fields.items()]
    assert [name for name, field in fields if not field.description] == []


def test_no_two_sections_have_a_field_of_one_name() -> None:
    assert len(SECTION_OF) == sum(len(section.model_fields) for section in SECTIONS.values())


def test_a_changed_field_is_changed_in_its_section_and_an_unknown_one_is_refused() -> None:
    changed = load_settings(scope="web").having(topic="other", subscription="ours", sums="off")
    assert (changed.bus.topic, changed.bus.subscription, changed.orders.sums) == ("other", "ours", "off")
    assert (changed.events.scope, changed.bus.drain_block) == ("web", 200)
    with pytest.raises(KeyError):
        changed.having(topics="other")
    with pytest.raises(ConfigurationError, match="did you mean INSTORE_TOPIC"):
        load_settings(topics="other")
