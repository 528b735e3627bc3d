"""What every test shares: an Airflow home of its own, and no proxy between loopback sockets."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.scheduler import LoadFileScheduling

from tests.servers import missing

ROOT = Path(__file__).parents[1]
ON_THE_RUNNING_PRODUCT = {f"tests/demo/test_{name}.py" for name in ("run_kinds", "the_bad_day", "up")}

# Before the first import of airflow, which reads them once.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="instore-tests-")
os.environ["AIRFLOW__CORE__LOAD_EXAMPLES"] = "False"
# The PostgreSQL package warns where this is missing.
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.mkdtemp(prefix="instore-run-"))
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"
os.environ["AIRFLOW_CONN_INSTORE_HASH_KEY"] = '{"conn_type": "generic", "password": "the-hash-key-of-the-tests"}'
for name in [name for name in os.environ if name.startswith("INSTORE_")]:
    del os.environ[name]
# How long an example takes says how busy the machine is.
settings.register_profile("any machine", deadline=None)
settings.load_profile("any machine")


@pytest.fixture(scope="session")
def airflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Airflow's SQLite database with the product's DAG in it, to be copied: all workers share one migration."""
    shared = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    made = shared / "airflow.db"
    with (shared / "airflow.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.exists():
            home = tmp_path_factory.mktemp("migrated")
            env = os.environ | {
                "PYTHONPATH": str(ROOT),
                "AIRFLOW_HOME": str(home),
                "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
                "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
                "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home / 'airflow.db'}",
            }
            for command in (["db", "migrate"], ["dags", "reserialize"]):
                script = f"from airflow.__main__ import main; import sys; sys.argv = ['airflow', *{command}]; main()"
                done = subprocess.run(
                    [sys.executable, "-c", script], env=env, cwd=ROOT, capture_output=True, text=True, check=False
                )
                assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-3000:]
            (home / "airflow.db").rename(made)
    return made


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many tests ran, failed and were skipped, and what tests have to say of themselves."""
    count = {name: len(terminalreporter.getreports(name)) for name in ("passed", "failed", "error", "skipped")}
    terminalreporter.write_line(
        f"{count['passed'] + count['failed']} tests ran, {count['failed'] + count['error']} failed, "
        f"{count['skipped']} skipped"
    )
    for report in terminalreporter.getreports("passed"):
        for name, text in report.user_properties:
            terminalreporter.write_line(f"{name}: {text}")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Only a test whose server pip cannot install may be skipped, and not where CI=true: there all are installed."""
    skipped = _skipped(session.config)
    allowed = 0 if os.environ.get("CI") == "true" else missing(skipped).total()
    if len(skipped) > allowed and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    """Name the missing servers in the last lines, below the totals."""
    for name, tests in missing(_skipped(config)).items():
        print(f"Skipped for want of {name}: {tests} tests")  # noqa: T201


def _skipped(config: pytest.Config) -> list[pytest.TestReport]:
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    return reporter.getreports("skipped") if reporter is not None else []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest begins first, or the other workers would wait for it at the end."""
    items.sort(key=lambda item: not _file(item.nodeid).startswith("tests/demo/"))


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    """With ``--dist loadfile``: a file's tests stay on one worker, and so do all that share the one Airflow."""
    return _OneAirflow(config, log) if config.getoption("dist") == "loadfile" else None


class _OneAirflow(LoadFileScheduling):
    def _split_scope(self, nodeid: str) -> str:
        file = _file(nodeid)
        return "the running product" if file in ON_THE_RUNNING_PRODUCT else file
