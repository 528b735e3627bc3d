"""The button to the events: where it leads, and where it must never lead."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from instore_provider.links import EventsPageLink


def link(monkeypatch: pytest.MonkeyPatch, extra: dict[str, Any] | str) -> str:
    connection = {"conn_type": "profile_store", "extra": extra}
    monkeypatch.setenv("AIRFLOW_CONN_LINKED", json.dumps(connection))
    operator: Any = SimpleNamespace(profile_store_conn_id="linked")
    return EventsPageLink().get_link(operator, ti_key=None)  # type: ignore[arg-type]


@pytest.mark.parametrize("page", ["https://app.example.com/#/profiles?tab=events", "http://127.0.0.1:8702/"])
def test_it_leads_to_the_page_of_the_connection(monkeypatch: pytest.MonkeyPatch, page: str) -> None:
    assert link(monkeypatch, {"events_page": page}) == page


@pytest.mark.parametrize(
    "page",
    ["", None, "javascript:alert(1)", "https://user:password@example.com/", "/profiles", "https://[", "https://"],
)
def test_there_is_no_button_without_a_page_that_may_be_shown(monkeypatch: pytest.MonkeyPatch, page: str | None) -> None:
    assert link(monkeypatch, {"events_page": page}) == ""


def test_there_is_no_button_and_no_error_without_the_connection() -> None:
    operator: Any = SimpleNamespace(profile_store_conn_id="no_such_connection")
    assert EventsPageLink().get_link(operator, ti_key=None) == ""  # type: ignore[arg-type]
