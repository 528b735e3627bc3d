"""What every test shares: an Airflow home of its own, and no proxy between loopback sockets."""

from __future__ import annotations

import os
import tempfile

import pytest

# Before the first import of airflow, which reads them once.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="instore-tests-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# The PostgreSQL package warns where this is missing.
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="instore-run-"))
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
for name in [name for name in os.environ if name.startswith("INSTORE_")]:
    del os.environ[name]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests ran and that none was skipped; a skipped test is a failure of the suite."""
    count = {name: len(terminalreporter.getreports(name)) for name in ("passed", "failed", "error", "skipped")}
    terminalreporter.write_line(
        f"{count['passed'] + count['failed']} tests ran, {count['failed'] + count['error']} failed, "
        f"{count['skipped']} skipped"
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Nothing here may be skipped: what cannot run on a machine has to be installed by the set-up."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None and reporter.getreports("skipped") and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
