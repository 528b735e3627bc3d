"""
# In-store orders to the Profile Store

Every hour this DAG takes the in-store orders that have arrived (messages on a Service Bus topic subscription, and ERP
extract files), finds the customer behind each loyalty card, and sends one `StorePurchase` tracking event per order to
the Profile Store. Nothing is lost, nothing is sent twice, and any date can be run again. With `INSTORE_WAKE_UP` on, a
run also starts when a message or a file waits.

## What to look at

`report_run` returns the run's counts (XCom, `return_value`). Every record received is in exactly one place:
`received = orders + duplicates + corrections + quarantined`; every order is sent, unmatched, suppressed, rejected, held
or carried over.

| count | means | what to do |
|---|---|---|
| `unmatched` | no customer behind the card; asked again after 1, 6, 24 hours, then daily | nothing: normal business |
| `look_up_failed` | of these, the card got no answer while others did; asked again as well | the log has the codes |
| `quarantined` | not an order by the contract; kept, messages as dead letters, too | tell the ERP partner the reason |
| `rejected` | the Profile Store refuses this event; the ledger has the reason | correct it, `deliveries settle` |
| `in_doubt` | it is not known yet whether the Profile Store accepted it | nothing: a later run verifies it |
| `held` | whether it was accepted cannot be verified | `deliveries list`, then decide |
| `not_visible` | of `read_back_asked` events of the run before, not shown yet | the runbook says |
| `waiting_files` | extracts that are cut or damaged, of which nothing was landed | have them exported again |
| `left_files` | extracts not read yet: still being written, or their marker is not there | told after hours |
| `carried_over` | stays ready: tracking is off, or a service was down | nothing: the next run sends it |

A green run makes an event of asset `instore_orders`, with its counts: schedule a DAG that follows on it.

## When it is red

A task finally failed, the numbers do not add up, more than `INSTORE_MAX_BAD_SHARE` of the records (and at least
`INSTORE_SHARE_MINIMUM`) were set aside, an order has another one's key, an extract could not be read to its end, or an
event is held. The failed task's log ends in one sentence that names the connection or setting and what to do. Nothing
is lost meanwhile: what was not committed is still on the bus, what was not sent is in the ledger. Clear the task, or
let the next hour do it.

## Running a date again

A **backfill** never touches the live topic: it loads the extracts of its interval again where they changed, and sends
what was not sent yet, rejected orders among it. A **manual** run does what the hourly run does; with a window, or a
Data Interval of your own, it sends that window's orders only. A Logical Date of your own is refused: it names no
window.
"""

from __future__ import annotations

from datetime import datetime, timezone

from airflow.sdk import CronDataIntervalTimetable, Param, TriggerRule, dag, task

from include.instore_airflow import alerting, tasks
from include.instore_airflow.batches import TASK_DEFAULTS, send_and_report
from include.instore_airflow.destinations import DESTINATIONS
from include.instore_airflow.page_links import page_in_airflow
from include.instore_airflow.schedule import or_woken
from include.instore_airflow.set_up import POOL_BUS
from include.instore_airflow.sources import SOURCES

WHAT = "What this run does"
MOMENT = {"type": ["null", "string"], "format": "date-time"}
PARAMS = {
    "window_start": Param(
        None,
        **MOMENT,
        title="Window start",
        description="First moment of the orders to send; empty: everything due.",
    ),
    "window_end": Param(None, **MOMENT, title="Window end", description="First moment after those orders."),
    "drain_topic": Param(
        True,
        type="boolean",
        section=WHAT,
        title="Drain the topic",
        description="Off: this run leaves the live subscription alone.",
    ),
    "track_events": Param(
        None,
        type=["null", "string"],
        enum=[None, "on", "off"],
        values_display={"None": "as INSTORE_ENABLE_TRACK_EVENTS says", "on": "send", "off": "do not send"},
        section=WHAT,
        title="Track events",
        description="Whether this run sends; what it does not send stays ready for a later one.",
    ),
    "resend": Param(
        False,
        type="boolean",
        section=WHAT,
        title="Send again",
        description="On: orders of the window (or of the backfill's interval) that were sent before are sent again, "
        "each once, as a new edition: a second event with a new id.",
    ),
    "destination": Param(
        None,
        type=["null", "string"],
        enum=[None, *DESTINATIONS],
        section=WHAT,
        title="Destination",
        description="Orders of the window that were never sent to this destination go there as well, as those do that "
        "came before it was switched on; with Send again only there.",
    ),
    "dry_run": Param(
        False,
        type="boolean",
        section=WHAT,
        title="Dry run",
        description="On: everything but settling and sending, on a ledger of its own; reports what would be sent.",
    ),
}


@dag(
    schedule=or_woken(CronDataIntervalTimetable("0 * * * *", timezone="UTC")),  # windows.EVERY says the same
    # Of a run dated before it Airflow makes a success without a task.
    start_date=datetime(1970, 1, 1, tzinfo=timezone.utc),
    catchup=False,
    max_active_runs=1,
    deadline=alerting.deadline(),
    on_failure_callback=alerting.run_failed,
    default_args=TASK_DEFAULTS,
    doc_md=f"{__doc__}\n[Where orders are, and what can be done]({page_in_airflow()})\n",
    tags=["in-store", "profile-store"],
    params=PARAMS,
)
def instore_orders() -> None:
    drained = task(tasks.drain_topic, pool=POOL_BUS, multiple_outputs=False)()
    loaded = task(tasks.load_extracts, multiple_outputs=False)()
    others = [
        task(tasks.take_orders, task_id=f"take_{source}", multiple_outputs=False)(source=source) for source in SOURCES
    ]
    # A source that fails must not hold up the orders of the others.
    planned = task(tasks.plan_batches, trigger_rule=TriggerRule.ALL_DONE)()

    send_and_report(planned)
    [drained, loaded, *others] >> planned


instore_orders()
