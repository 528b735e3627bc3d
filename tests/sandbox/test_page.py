"""The Profile Store's page shows what arrived, and only as text."""

from __future__ import annotations

from .conftest import Service, event

NASTY = '<script>alert("1")</script>&'


def test_the_page_shows_totals_and_the_latest_events(store: Service) -> None:
    store.track_bulk(*(event(f"S{n}") for n in range(60)))
    answer = store.get("/")
    assert answer.headers["content-type"].startswith("text/html")
    assert "<b>60</b><span>events</span>" in answer.text
    assert "<td>S59</td>" in answer.text
    assert "<td>S9</td>" not in answer.text


def test_everything_on_the_page_is_escaped(store: Service) -> None:
    store.track_bulk(
        event(
            scope=NASTY,
            deviceId=NASTY,
            eventType=NASTY,
            trackId=NASTY,
            user={"email": NASTY, "name": NASTY},
            payload={"orderNumber": NASTY, "storeId": NASTY},
        )
    )
    for text in (store.get("/").text, store.post("/", data={"q": NASTY}).text):
        assert "<script" not in text
        assert text.count("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;") >= 8


def test_the_search_finds_by_order_number_and_by_email_in_any_case(store: Service) -> None:
    store.track_bulk(event("S1"), event("S2", user={"email": "bo@example.com"}))
    for term, seen, unseen in (("S1", "S1", "S2"), ("BO@example.com", "S2", "S1")):
        text = store.post("/", data={"q": f" {term} "}).text
        assert f"<td>{seen}</td>" in text
        assert f"<td>{unseen}</td>" not in text
    assert "No events." in store.post("/", data={"q": "' OR 1=1 --"}).text


def test_the_page_may_run_no_script_and_sends_no_search_in_a_url(store: Service) -> None:
    answer = store.get("/")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert '<form method="post"' in answer.text


def test_the_page_works_while_every_call_of_the_service_fails(store: Service) -> None:
    store.set_faults(share=1, latency=0.01)
    assert store.track_bulk(event()).status_code == 503
    assert store.get("/").status_code == 200
    assert store.state()["calls"] == {"POST /api/v1.0/TrackBulk": {"503": 1}}
