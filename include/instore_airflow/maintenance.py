"""A plain function for each task of the DAGs beside the hourly one."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from include.instore_airflow.run_context import told_to_airflow

log = logging.getLogger(__name__)


def check_connections(params: Mapping[str, Any]) -> dict[str, str]:
    """Use every connection once; connection to its state, and a line of the log for each.

    :raises AirflowFailException: one does not work.
    """
    from airflow.sdk.exceptions import AirflowFailException

    with told_to_airflow():
        from include.instore.model.settings import load_settings
        from include.instore_airflow.checking import check_connections as check

        states: dict[str, str] = {}
        failed = []
        for each in check(load_settings(), test_alert=bool(params.get("test_alert"))):
            log.log(_LEVELS[each.state], "%s: %s: %s", each.conn_id, each.state, each.said)
            states[each.conn_id] = each.state
            failed += [each.said] if each.state == "failed" else []
    if failed:
        raise AirflowFailException(f"{len(failed)} connections do not work. {' '.join(failed)}")
    return states


_LEVELS = {"ok": logging.INFO, "warning": logging.WARNING, "failed": logging.ERROR}
