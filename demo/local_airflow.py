"""A real Airflow on this machine: PostgreSQL, LocalExecutor, every component a process of its own, loopback only."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import requests
from cryptography.fernet import Fernet

from demo import metadata_database
from sandbox.keys import write_private
from sandbox.processes import Processes, free_port

ROOT = Path(__file__).resolve().parents[1]
USER = "admin"
_OWN = ("AIRFLOW_", "INSTORE_")
_START_SECONDS = 240
_CALL_SECONDS = 60


class AirflowFailed(Exception):
    """Airflow did not start or did not do what was asked; the message says where to look."""


class LocalAirflow:
    """One Airflow of its own home folder, on what that holds already.

    :param home: AIRFLOW_HOME: metadata database, logs, password and secrets.
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
        self._own = self._environment() | dict(settings or {})
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy of the environment has no business on loopback
        self._session.headers["Connection"] = "close"  # nobody has to close the session then
        self._airflow = str(Path(sys.executable).with_name("airflow"))

    @classmethod
    def running(cls, folder: Path) -> LocalAirflow:
        """The one that another command has left running in this folder, signed in. :raises AirflowFailed: none is."""
        processes = Processes(folder)
        supervisor = processes.running().get("airflow")
        if supervisor is None:
            raise AirflowFailed(f"No Airflow is running in {folder}.")
        airflow = cls(folder.resolve() / "airflow", processes, int(supervisor.cmdline()[-1]))
        airflow._own |= {name: value for name, value in supervisor.environ().items() if name.startswith(_OWN)}
        airflow._sign_in()
        return airflow

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
        """Make what the home folder does not hold yet, start the components and sign in.

        :raises AirflowFailed: with the end of the log of the component that did not come up.
        """
        _kept(self._home / "passwords.json", {USER: secrets.token_urlsafe(12)})
        self._own |= _kept(self._home / "secrets.json", _new_secrets())
        database = metadata_database.start(self._home / "postgresql", self._processes)
        self._own["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"] = database
        # psycopg speaks both ways; by itself Airflow would take another driver for the asynchronous one.
        self._own["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC"] = database
        self._migrate()
        command = [sys.executable, "-m", "demo.components", str(self._processes.logs), str(self.port)]
        self._processes.start("airflow", command, self._env)
        self._set_up()  # while the components start
        self._wait_until(self._answers, "the API server to answer")
        self._sign_in()
        self._wait_until(self._healthy, "scheduler, dag-processor and triggerer to be healthy")

    def write_environment(self, path: Path) -> None:
        """Write what a shell needs for commands beside this Airflow, secrets among it, for ``. path``."""
        lines = [f"export {name}={shlex.quote(value)}" for name, value in sorted(self._own.items())]
        lines.append(f'export PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH"')
        write_private(path, "\n".join([*lines, ""]))

    @property
    def _env(self) -> dict[str, str]:
        # Settings of another Airflow or another pipeline in this shell must not leak in.
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(_OWN)}
        return inherited | self._own

    def _migrate(self) -> None:
        """Bring the database to this Airflow's version; it takes long even where there is nothing to do."""
        done = self._home / "postgresql" / "migrated"
        if not done.exists() or done.read_text() != version("apache-airflow"):
            self.run("db", "migrate")
            done.write_text(version("apache-airflow"))

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

    def connect(self, conn_id: str, conn_type: str, *, anew: bool = False, **fields: Any) -> None:
        """Create a connection; ``extra`` may be a mapping. One that is there already is left alone but for ``anew``."""
        if isinstance(fields.get("extra"), Mapping):
            fields["extra"] = json.dumps(fields["extra"])
        body = {"connection_id": conn_id, "conn_type": conn_type, **fields}
        if not self._knows(f"/connections/{conn_id}"):
            self.call("POST", "/connections", json=body)
        elif anew:
            self.call("PATCH", f"/connections/{conn_id}", json=body)

    def wait_for_dag(self, dag_id: str) -> None:
        """Wait until the dag-processor has read the DAG."""
        self._wait_until(lambda: self._knows(f"/dags/{dag_id}"), f"DAG {dag_id} to be read")

    def check(self) -> None:
        """:raises AirflowFailed: a component has died."""
        if name := self._processes.dead():
            raise AirflowFailed(f"{name} has stopped by itself; its last words:\n{self._processes.log_tail(name)}")

    def _environment(self) -> dict[str, str]:
        return {
            "AIRFLOW_HOME": str(self._home),
            "PYTHONPATH": str(ROOT),
            "NO_PROXY": "127.0.0.1,localhost",
            "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "dags"),
            "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
            "AIRFLOW__CORE__PARALLELISM": "4",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": f"{USER}:admin",
            "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(self._home / "passwords.json"),
            "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "AIRFLOW__CORE__TEST_CONNECTION": "Enabled",
            "AIRFLOW__API__BASE_URL": self.url,
            "AIRFLOW__SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.5",
            # What a scheduler that died had begun is begun again by the next one within a minute, not five.
            "AIRFLOW__SCHEDULER__ORPHANED_TASKS_CHECK_INTERVAL": "30",
            "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
            "AIRFLOW__DAG_PROCESSOR__REFRESH_INTERVAL": "30",
            "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
            # What a demonstration delivers is whole, and is not waited for.
            "INSTORE_EXTRACT_MIN_AGE": "0",
        }

    def _knows(self, path: str) -> bool:
        return self._session.get(f"{self.url}/api/v2{path}", timeout=_CALL_SECONDS).status_code == 200

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


def _kept(path: Path, new: dict[str, str]) -> dict[str, str]:
    """What the file holds; where there is none it is made of ``new``, for its owner's eyes only."""
    if not path.exists():
        write_private(path, json.dumps(new))
    kept: dict[str, str] = json.loads(path.read_text())
    return kept


def _new_secrets() -> dict[str, str]:
    return {
        "AIRFLOW__CORE__FERNET_KEY": Fernet.generate_key().decode(),
        "AIRFLOW__API__SECRET_KEY": secrets.token_hex(32),
        "AIRFLOW__API_AUTH__JWT_SECRET": secrets.token_hex(32),
    }
