"""The operator in real DAG runs: what goes over the wire, and what Airflow keeps of it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from instore_provider.operators.profile_store import ProfileStoreTrackOperator, SealedEvents, with_track_id

from tests.provider.conftest import READ_KEY, ROOT, TRACKING_KEY
from tests.provider.operator_runs import MARK, dags, orders
from tests.provider.wire import HANG_UP, STALL, Reply, Seen, Wire

BULK = "/api/v1.0/TrackBulk"
ONE = "/api/v1.0/Track"
READ = "/api/v1.0/trackevents/"


@dataclass(frozen=True)
class Run:
    wire: Wire
    log: str
    states: list[str]
    tries: list[int]
    rendered: list[dict[str, Any]]
    serialized: str
    returned: list[Any]
    everything: str

    def sent(self) -> list[list[str]]:
        return [[each["trackId"] for each in seen.json] for seen in self.wire.to(BULK)]


def shows(*track_ids: str) -> Any:
    def answer(seen: Seen) -> Reply:
        return Reply(
            200,
            {
                "items": (
                    found := [{"TrackId": each} for each in track_ids if seen.query["$filter"][0].endswith(each)]
                ),
                "total": len(found),
            },
        )

    return answer


def script(wires: dict[str, Wire]) -> None:
    for wire in wires.values():
        wire.on(BULK, Reply(202)).on(ONE, Reply(202)).on(READ, shows())
    for name in ("refused", "refused_allowed"):
        wires[name].on(
            BULK,
            lambda seen: (
                Reply(422, {"message": "canary1@example.com is no good"})
                if any(each["trackId"] == "t1" for each in seen.json)
                else Reply(202)
            ),
        )
    wires["outage"].on(BULK, Reply(202), Reply(503, headers={"Retry-After": "7"}), Reply(202))
    wires["wrong_key"].on(BULK, Reply(401))
    wires["verify"].on(BULK, HANG_UP, Reply(202)).on(READ, shows("t0"))
    wires["verify_later"].on(BULK, Reply(502)).on(READ, Reply(503), Reply(503), shows("t0", "t1"))
    wires["verify_unclear"].on(BULK, Reply(502)).on(READ, Reply(200, {"items": [], "total": 7}))
    wires["timed_out"].on(BULK, STALL).on(READ, shows("t0", "t1"))
    wires["verify_without_reading"].on(BULK, Reply(502))
    wires["hold"].on(BULK, Reply(502))
    wires["resend"].on(BULK, Reply(502), Reply(202))


@pytest.fixture(scope="session")
def runs(airflow_environment: dict[str, str]) -> Iterator[dict[str, Run]]:
    names = list(dags())
    wires = {name: Wire() for name in names}
    script(wires)
    environment = dict(airflow_environment)
    for name, wire in wires.items():
        extra = {} if name == "verify_without_reading" else {"read_host": wire.url, "read_api_key": READ_KEY}
        fields = {"conn_type": "profile_store", "host": wire.url, "password": TRACKING_KEY, "extra": extra}
        environment[f"AIRFLOW_CONN_STORE_{name.upper()}"] = json.dumps(fields)
    ran = subprocess.run(
        [sys.executable, "-m", "tests.provider.operator_runs"],
        env=environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    parts = ran.stdout.split(MARK)[1:]
    assert len(parts) == 2 * len(names), ran.stdout[-3000:]
    found = {}
    for name, log, stored in zip(names, parts[::2], parts[1::2], strict=True):
        kept = json.loads(stored.splitlines()[0])
        returned = [
            json.loads(each["value"]) if isinstance(each["value"], str) else each["value"]
            for each in kept["xcoms"]
            if each["key"] == "return_value"
        ]
        found[name] = Run(
            wires[name],
            log,
            kept["states"],
            kept["tries"],
            kept["rendered"],
            kept["serialized"],
            returned,
            log + stored,
        )
    yield found
    for wire in wires.values():
        wire.close()


def counts(**given: int) -> dict[str, int]:
    return {"events": 0, "accepted": 0, "refused": 0, "unsent": 0, "ambiguous": 0, **given}


def test_events_of_an_upstream_task_are_sent_and_only_counts_come_back(runs: dict[str, Run]) -> None:
    run = runs["from_upstream"]
    assert (run.states, run.returned) == (["success"], [counts(events=2, accepted=2)])
    (seen,) = run.wire.to(BULK)
    assert [each["payload"]["orderNumber"] for each in seen.json] == ["S0", "S1"]


def test_an_event_without_a_track_id_gets_one_from_its_content(runs: dict[str, Run]) -> None:
    expected = [with_track_id(event)["trackId"] for event in orders(2)]
    assert runs["from_upstream"].sent() == [expected]
    assert len(set(expected)) == 2
    assert with_track_id({"b": 1, "a": 2}) == {"b": 1, "a": 2, "trackId": with_track_id({"a": 2, "b": 1})["trackId"]}
    assert with_track_id({"trackId": "own", "a": 1})["trackId"] == "own"


@pytest.mark.parametrize("name", list(dags()))
def test_no_email_and_no_key_is_in_rendered_fields_xcoms_serialized_dags_and_logs(
    runs: dict[str, Run], name: str
) -> None:
    assert "canary" not in runs[name].everything
    assert runs[name].rendered != []


def test_rendered_events_are_a_count(runs: dict[str, Run]) -> None:
    assert runs["from_upstream"].rendered == [
        {"events": "2 events (not shown)", "profile_store_conn_id": "store_from_upstream"}
    ]
    assert sorted(each["events"] for each in runs["mapped"].rendered) == [
        "1 events (not shown)",
        "2 events (not shown)",
    ]


@pytest.mark.parametrize("name", ["from_upstream", "literal", "mapped"])
def test_events_are_data_and_never_templates(runs: dict[str, Run], name: str) -> None:
    run = runs[name]
    assert set(run.states) == {"success"}
    notes = {each["payload"]["note"] for seen in run.wire.to(BULK) for each in seen.json}
    assert notes == {"{{ 1/0 }} and {{ ds"}


def test_the_upstream_task_is_upstream() -> None:
    assert dags()["from_upstream"].get_task("send").upstream_task_ids == {"fetch"}


def test_refused_events_fail_the_task_without_a_retry_after_all_others_were_sent(runs: dict[str, Run]) -> None:
    run = runs["refused"]
    assert (run.states, run.tries) == (["failed"], [1])
    assert ["t0"] in run.sent()
    assert ["t2"] in run.sent() or ["t1", "t2"] in run.sent()


def test_refused_events_are_named_by_their_index_in_the_list(runs: dict[str, Run]) -> None:
    run = runs["refused"]
    assert "Refused: events[1], trackId t1, status 422: *** is no good" in run.log
    assert "refused 1 of 3 events, events[1], so correct them" in run.log


def test_the_counts_come_back_also_where_the_task_fails(runs: dict[str, Run]) -> None:
    assert runs["refused"].returned == [counts(events=3, accepted=2, refused=1)]
    assert runs["wrong_key"].returned == [counts(events=2, unsent=2)]
    assert runs["verify_unclear"].returned == [counts(events=2, ambiguous=2)]


def test_refused_events_may_be_allowed(runs: dict[str, Run]) -> None:
    run = runs["refused_allowed"]
    assert (run.states, run.returned) == (["success"], [counts(events=3, accepted=2, refused=1)])


def test_an_outage_is_retried_by_airflow_and_what_was_accepted_is_not_sent_again(runs: dict[str, Run]) -> None:
    run = runs["outage"]
    assert (run.states, run.tries) == (["success"], [2])
    assert run.sent() == [["t0", "t1"], ["t2", "t3"], ["t2", "t3"]]
    assert run.returned == [counts(events=4, accepted=4)]
    assert (
        "2 of 4 events are not sent (the Tracking API answered 503 in 1 attempt(s)), so try the task again." in run.log
    )


def test_a_wrong_key_fails_the_task_at_once_in_one_sentence(runs: dict[str, Run]) -> None:
    run = runs["wrong_key"]
    assert (run.states, run.tries) == (["failed"], [1])
    assert len(run.wire.seen) == 1
    assert "Connection 'store_wrong_key': its field 'password' was refused by the Tracking API (401)" in run.log
    assert "During handling of the above exception" not in run.log
    assert "direct cause" not in run.log


def test_ambiguous_events_are_looked_for_and_only_the_missing_are_sent_again(runs: dict[str, Run]) -> None:
    run = runs["verify"]
    assert (run.states, run.tries, run.returned) == (["success"], [1], [counts(events=2, accepted=2)])
    assert run.sent() == [["t0", "t1"], ["t1"]]
    assert len(run.wire.to(READ)) > 2


def test_what_could_not_be_verified_is_verified_by_the_next_try_and_not_sent_blindly(runs: dict[str, Run]) -> None:
    run = runs["verify_later"]
    assert (run.states, run.tries, run.returned) == (["success"], [2], [counts(events=2, accepted=2)])
    assert run.sent() == [["t0", "t1"]]


def test_what_the_reading_side_does_not_tell_is_neither_sent_again_nor_counted_as_sent(runs: dict[str, Run]) -> None:
    run = runs["verify_unclear"]
    assert (run.states, run.tries, run.sent()) == (["failed"], [2], [["t0", "t1"]])
    assert "2 of 2 events are not sent" in run.log


def test_what_was_under_way_when_the_task_was_stopped_is_verified_by_the_next_try(runs: dict[str, Run]) -> None:
    run = runs["timed_out"]
    assert (run.states, run.tries, run.returned) == (["success"], [2], [counts(events=2, accepted=2)])
    assert run.sent() == [["t0", "t1"]]


def test_verifying_needs_the_reading_api_and_says_so(runs: dict[str, Run]) -> None:
    run = runs["verify_without_reading"]
    assert (run.states, run.tries) == (["failed"], [1])
    assert "its field 'read_host' is empty" in run.log


def test_hold_leaves_ambiguous_events_alone(runs: dict[str, Run]) -> None:
    run = runs["hold"]
    assert (run.states, run.returned) == (["success"], [counts(events=2, ambiguous=2)])
    assert len(run.wire.seen) == 1


def test_resend_sends_ambiguous_events_again_at_once(runs: dict[str, Run]) -> None:
    run = runs["resend"]
    assert (run.states, run.returned) == (["success"], [counts(events=2, accepted=2)])
    assert run.sent() == [["t0", "t1"]] * 2
    assert run.wire.to(READ) == []


def test_switched_off_it_sends_nothing_and_says_so(runs: dict[str, Run]) -> None:
    run = runs["switched_off"]
    assert (run.states, run.returned, run.wire.seen) == (["success"], [counts(events=2, unsent=2)], [])
    assert "Tracking is switched off" in run.log


def test_one_by_one(runs: dict[str, Run]) -> None:
    run = runs["one_by_one"]
    assert [seen.json["trackId"] for seen in run.wire.to(ONE)] == ["t0", "t1"]
    assert run.returned == [counts(events=2, accepted=2)]


def test_mapped_instances_send_their_own_events(runs: dict[str, Run]) -> None:
    run = runs["mapped"]
    assert run.states == ["success", "success"]
    assert sorted(run.sent()) == [["t0"], ["t0", "t1"]]


@pytest.mark.parametrize("events", ["{{ ti.xcom_pull('x') }}", {"trackId": "t"}, 5, ["text"], [None]])
def test_events_of_another_shape_are_an_error_of_the_dag_file(events: Any) -> None:
    with pytest.raises(TypeError, match="events must"):
        ProfileStoreTrackOperator(task_id="send", events=events)


def test_an_unknown_policy_is_an_error_of_the_dag_file() -> None:
    with pytest.raises(ValueError, match="on_ambiguous"):
        ProfileStoreTrackOperator(task_id="send", events=[], on_ambiguous="guess")  # type: ignore[arg-type]


def test_sealed_events_show_their_number_only() -> None:
    sealed = SealedEvents(orders(3))
    assert repr(sealed) == str(sealed) == "3 events (not shown)"
    assert list(sealed) == orders(3)
    assert sealed[1:] == tuple(orders(3)[1:])


def test_a_dag_file_that_imports_the_operator_imports_no_http_library() -> None:
    telling = "print([each for each in ('requests', 'tenacity', 'instore_provider.http') if each in sys.modules])"
    told = [
        subprocess.run(
            [sys.executable, "-c", f"import sys; {imports}; {telling}"],
            env={"PYTHONPATH": str(ROOT / "plugins")},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for imports in (
            "import instore_provider.operators.profile_store",
            "from airflow.sdk import BaseOperator, XComArg",
        )
    ]
    assert told[0] == told[1]
