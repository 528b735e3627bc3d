"""The button on a task that sends events: to the page where the destination shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.sdk import BaseOperatorLink

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator
    from airflow.sdk.types import TaskInstanceKey


class EventsPageLink(BaseOperatorLink):
    """Leads to the connection's `events_page`; there is no button where it is empty."""

    name = "Events in the Profile Store"

    def get_link(self, operator: BaseOperator, *, ti_key: TaskInstanceKey) -> str:  # noqa: ARG002 - one page for all
        """
        Return the address, which Airflow keeps in XCom: it is for everybody who may see the task.

        Called by the worker at the end of every try, whatever became of it. An address that is missing or wrong is
        the empty one: a button is no reason to write errors into the log of a task.
        """
        from urllib.parse import urlsplit

        from airflow.sdk import BaseHook
        from airflow.sdk.exceptions import AirflowNotFoundException

        conn_id = getattr(operator, "profile_store_conn_id", "")
        try:
            # Not by the model of the fields: another one that is wrong is no reason to have no button.
            page = str(BaseHook.get_connection(conn_id).extra_dejson.get("events_page") or "") if conn_id else ""
            url = urlsplit(page)
        except (AirflowNotFoundException, AttributeError, ValueError):
            return ""
        # A button must not run a script (javascript:) or hand on a password (https://user:password@host).
        return page if url.scheme in {"https", "http"} and url.hostname and "@" not in url.netloc else ""
