"""A plain function for each task of the DAGs beside the hourly one."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from include.instore_airflow.connections import open_ledger
from include.instore_airflow.erasing import eraser_on_bus
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


def prune() -> dict[str, int]:
    """Remove what the settings keep no longer; the counts.

    :raises AirflowFailException: quarantined records were given up that nobody had settled.
    """
    from airflow.sdk.exceptions import AirflowFailException

    with told_to_airflow():
        from include.instore.customers.erasing import look_after
        from include.instore.ledger.retention import prune as prune_ledger
        from include.instore.model.settings import load_settings

        settings = load_settings()
        with contextlib.closing(open_ledger(settings)) as ledger:
            look_after(ledger, settings)
            pruned = prune_ledger(ledger, settings.retention)
    log.info("removed: %s", asdict(pruned))
    if pruned.given_up:
        raise AirflowFailException(
            f"{pruned.given_up} quarantined records older than INSTORE_RETENTION_DAYS_QUARANTINE were given up, though "
            "nobody had settled them: their content is removed. Settle them earlier: python -m include.instore "
            "quarantine list."
        )
    return asdict(pruned)


def erase(params: Mapping[str, Any]) -> dict[str, Any]:
    """Forget the person whose cards and addresses are in an Airflow Variable, and remove that Variable; the counts."""
    from airflow.sdk import Variable

    with told_to_airflow():
        from include.instore.customers.erasing import forget_person
        from include.instore.ledger.audit import note_done
        from include.instore.model.errors import ConfigurationError
        from include.instore.model.settings import load_settings

        settings, name = load_settings(), str(params["variable"])
        words = str(Variable.get(name, default="")).split()
        if not words:
            raise ConfigurationError(
                f"Airflow Variable {name} is missing or empty; put the person's cards and addresses into it, with "
                "spaces between them."
            )
        with contextlib.closing(open_ledger(settings)) as ledger:
            done = forget_person(
                ledger,
                settings,
                cards=[each for each in words if "@" not in each],
                emails=[each for each in words if "@" in each],
                on_bus=eraser_on_bus(ledger, settings),
                dry_run=bool(params["dry_run"]),
            )
            if not params["dry_run"]:
                note_done(ledger, "erase", done.orders, done.receipt)
                Variable.delete(name)
    return asdict(done)
