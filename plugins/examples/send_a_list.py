"""Send a plain list of events to the Profile Store."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

from airflow.sdk import dag, task
from instore_provider.operators.profile_store import ProfileStoreTrackOperator


@dag(schedule=None, tags=["example"])
def send_a_list() -> None:
    @task(show_return_value_in_logs=False)  # Airflow would log every event
    def newsletter_openings() -> list[dict[str, Any]]:
        moment = datetime(2026, 11, 24, 9, 30, tzinfo=timezone.utc).isoformat()
        return [
            {
                "deviceId": "Newsletter",
                "eventType": "NewsletterOpened",
                "value": "NewsletterOpened",
                "scope": "Default",
                "eventTime": moment,
                "user": {"email": address},
                "payload": {"issue": "2026-48", "clicks": 3},
            }
            for address in ("jane@example.com", "john@example.com")
        ]

    # Fails after all others were sent where the Profile Store refuses an event, and names it by its index.
    ProfileStoreTrackOperator(task_id="send", events=newsletter_openings())


send_a_list()
