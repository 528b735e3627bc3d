"""A real Airflow on this machine: PostgreSQL, LocalExecutor, every component a process of its own, loopback only."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import requests
from cryptography.fernet import Fernet

from demo import metadata_database
from demo.processes import Processes, free_port

ROOT = Path(__file__).resolve().parents[1]
USER = "admin"
_START_SECONDS = 120
_CALL_SECONDS = 60


class AirflowFailed(Exception):
    """Airflow did not start or did not do what was asked; the message says where to look."""


class LocalAirflow:
    """One Airflow of its own home folder.

    :param home: AIRFLOW_HOME: metadata database, logs and password.
    :param processes: starts and stops the components.
    :param port: of the UI and API, see :func:`free_port`; 0 takes a free one.
    :param settings: further environment, such as INSTORE_* variables.
    """

    def __init__(
        self,
        home: Path,
        processes: Processes,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        self._home = home
        self._processes = processes
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._env = self._environment() | dict(settings or {})
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment has no business on loopback
        self._airflow = str(Path(sys.executable).with_name("airflow"))

    @property
    def password(self) -> str:
        """The generated password of user ``admin``."""
        password: str = json.loads((self._home / "passwords.json").read_text())[USER]
        return password

    @property
    def database(self) -> str:
        """SQLAlchemy URL of its metadata, once it was started."""
        return self._env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"]

    def start(self) -> None:
        """Make the database, start the components and sign in.

        :raises AirflowFailed: with the end of the log of the component that did not come up.
        """
        self._home.mkdir(parents=True, exist_ok=True)
        password_file = self._home / "passwords.json"
        password_file.touch(mode=0o600)
        password_file.write_text(json.dumps({USER: secrets.token_urlsafe(12)}))
        database = metadata_database.start(self._home / "postgresql", self._processes)
        self._env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = database
        # psycopg speaks both ways; by itself Airflow would take another driver for the asynchronous one.
        self._env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"] = database
        self.run("db", "migrate")
        self._set_up()
        command = [sys.executable, "-m", "demo.components", str(self._processes.logs), str(self.port)]
        self._processes.start("airflow", command, self._env)
        self._wait_until(self._answers, "the API server to answer")
        self._sign_in()
        self._wait_until(self._healthy, "scheduler, dag-processor and triggerer to be healthy")

    def _set_up(self) -> None:
        """Make the pools, as an operator does."""
        command = [sys.executable, "-m", "include.instore", "set-up"]
        done = subprocess.run(command, env=self._env, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            raise AirflowFailed(f"set-up failed:\n{(done.stdout + done.stderr)[-2000:]}")

    def run(self, *arguments: str) -> str:
        """Run one ``airflow`` command to its end; what it printed. :raises AirflowFailed: it failed."""
        done = subprocess.run(  # noqa: S603  our own command line
            [self._airflow, *arguments], env=self._env, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise AirflowFailed(f"airflow {' '.join(arguments)} failed:\n{(done.stdout + done.stderr)[-2000:]}")
        return done.stdout

    def call(self, method: str, path: str, **kwargs: Any) -> Any:
        """Call the public API under ``/api/v2``; the decoded answer. :raises AirflowFailed: it is an error."""
        answer = self._session.request(method, f"{self.url}/api/v2{path}", timeout=_CALL_SECONDS, **kwargs)
        if not answer.ok:
            raise AirflowFailed(f"Airflow answered {answer.status_code} to {method} {path}: {answer.text[:500]}")
        return answer.json() if answer.content else None

    def connect(self, conn_id: str, conn_type: str, **fields: Any) -> None:
        """Create a connection; ``extra`` may be a mapping."""
        if isinstance(fields.get("extra"), Mapping):
            fields["extra"] = json.dumps(fields["extra"])
        self.call("POST", "/connections", json={"connection_id": conn_id, "conn_type": conn_type, **fields})

    def wait_for_dag(self, dag_id: str) -> None:
        """Wait until the dag-processor has read the DAG."""

        def known() -> bool:
            answer = self._session.get(f"{self.url}/api/v2/dags/{dag_id}", timeout=_CALL_SECONDS)
            return answer.status_code == 200

        self._wait_until(known, f"DAG {dag_id} to be read")

    def check(self) -> None:
        """:raises AirflowFailed: a component has died."""
        if name := self._processes.dead():
            raise AirflowFailed(f"{name} has stopped by itself; its last words:\n{self._processes.log_tail(name)}")

    def _environment(self) -> dict[str, str]:
        # Settings of another Airflow or another pipeline in this shell must not leak in.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AIRFLOW_", "INSTORE_"))}
        return inherited | {
            "AIRFLOW_HOME": str(self._home),
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "127.0.0.1,localhost",
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._home / "passwords.json"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
            "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.1",
            # What a scheduler that died had begun is begun again by the next one within a minute, not five.
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        }

    def _answers(self) -> bool:
        try:
            return self._session.get(f"{self.url}/execution/health", timeout=5).ok
        except requests.RequestException:
            return False

    def _healthy(self) -> bool:
        health = self._session.get(f"{self.url}/api/v2/monitor/health", timeout=_CALL_SECONDS).json()
        parts = ("scheduler", "dag_processor", "triggerer")
        return all((health.get(part) or {}).get("status") == "healthy" for part in parts)

    def _sign_in(self) -> None:
        answer = self._session.post(
            f"{self.url}/auth/token", json={"username": USER, "password": self.password}, timeout=_CALL_SECONDS
        )
        if not answer.ok:
            raise AirflowFailed(f"Airflow did not take the generated password: {answer.status_code}.")
        self._session.headers["Authorization"] = f"Bearer {answer.json()['access_token']}"

    def _wait_until(self, condition: Any, what: str) -> None:
        until = time.monotonic() + _START_SECONDS
        while not condition():
            self.check()
            if time.monotonic() > until:
                raise AirflowFailed(f"Waited {_START_SECONDS} s for {what}; the logs are in {self._home.parent}/logs.")
            time.sleep(0.2)
