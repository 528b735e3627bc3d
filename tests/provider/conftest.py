"""Connections come from the environment, the services are scripted ones on loopback sockets."""

from __future__ import annotations

import os
import shutil
import tempfile

# Before the first import of airflow, which reads them once. Proxies of the machine must not see loopback calls.
os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="provider-tests-"))
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
os.environ["NO_PROXY"] = os.environ["no_proxy"] = "127.0.0.1,localhost"

import datetime
import ipaddress
import json
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.provider.wire import STALL, STALLED_BODY, Wire

ROOT = Path(__file__).parents[2]
TRACKING_KEY = "tracking-key-canary-41d8"
READ_KEY = "read-key-canary-77ab"
LOYALTY_KEY = "loyalty-key-canary-c3f0"
QUICK = {"first_wait": 0.001, "longest_wait": 0.002, "max_attempts": 3, "read_timeout": 10, "connect_timeout": 5}


def patience(fault: Any) -> float:
    """Seconds to wait for an answer: few for one that will not come, many for one that a busy machine delays."""
    return 1 if fault in (STALL, STALLED_BODY) else 10


@pytest.fixture
def wire() -> Iterator[Wire]:
    with ExitStack() as stack:
        wire = Wire()
        stack.callback(wire.close)
        yield wire


@pytest.fixture
def connection(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Define an Airflow connection by its fields; its id is returned."""

    def define(
        conn_type: str, host: str | None, password: str | None = None, login: str | None = None, **extra: Any
    ) -> str:
        fields = {"conn_type": conn_type, "host": host, "password": password, "login": login, "extra": extra}
        monkeypatch.setenv(f"AIRFLOW_CONN_TEST_{conn_type.upper()}", json.dumps(fields))
        return f"test_{conn_type}"

    return define


@pytest.fixture
def profile_store(connection: Callable[..., str], wire: Wire) -> Iterator[Callable[..., Any]]:
    """Make a hook whose Tracking and Profile Store APIs are the wire; keywords are hook arguments."""
    from instore_provider.hooks.profile_store import ProfileStoreHook

    with ExitStack() as stack:

        def make(*, extra: dict[str, Any] | None = None, host: str | None = None, **arguments: Any) -> ProfileStoreHook:
            given = {"read_host": wire.url, "read_api_key": READ_KEY} if extra is None else extra
            conn_id = connection("profile_store", host or wire.url, TRACKING_KEY, **given)
            hook = ProfileStoreHook(conn_id, **{**QUICK, **arguments})
            stack.callback(hook.close)
            return hook

        yield make


@pytest.fixture
def loyalty(connection: Callable[..., str], wire: Wire) -> Iterator[Callable[..., Any]]:
    """Make a hook whose provider is the wire; keywords are extras of the connection."""
    from instore_provider.hooks.loyalty import LoyaltyHook

    with ExitStack() as stack:

        def make(
            *, host: str | None = None, login: str | None = None, hook: dict[str, Any] | None = None, **extra: Any
        ) -> LoyaltyHook:
            conn_id = connection("loyalty", host or wire.url, LOYALTY_KEY, login, **extra)
            made = LoyaltyHook(conn_id, **{**QUICK, **(hook or {})})
            stack.callback(made.close)
            return made

        yield make


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for 127.0.0.1 that no system trusts, and the context of a server that shows it."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "loopback")])
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("authority")
    bundle = folder / "certificate.pem"
    bundle.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private = folder / "key.pem"
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(bundle, private)
    return bundle, context


@pytest.fixture
def tls_wire(authority: tuple[Path, ssl.SSLContext]) -> Iterator[Wire]:
    wire = Wire(authority[1])
    yield wire
    wire.close()


@pytest.fixture(scope="session")
def airflow_environment(tmp_path_factory: pytest.TempPathFactory, airflow_database: Path) -> dict[str, str]:
    """The environment of an Airflow of its own: SQLite, migrated, this provider installed, nobody let in unasked."""
    home = tmp_path_factory.mktemp("airflow")
    passwords = home / "passwords.json"
    passwords.write_text(json.dumps({"keeper": "open sesame"}))
    # `dag.test()` runs only what it finds in the DAG folder as well.
    (home / "dags").mkdir()
    (home / "dags" / "operator_runs.py").write_text(
        "# An airflow DAG file.\nfrom tests.provider.operator_runs import dags\n\nglobals().update(dags())\n"
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    environment = {
        **kept,
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{home}/airflow.db",
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DAGS_FOLDER": str(home / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(ROOT / "plugins"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "keeper:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
        "AIRFLOW__API_AUTH__JWT_SECRET": "a-secret-for-these-tests-only-of-64-bytes-at-least-0123456789abcdef",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "plugins"), str(ROOT)]),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    shutil.copy(airflow_database, home / "airflow.db")
    return environment
