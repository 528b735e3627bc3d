"""Real storages on loopback: Azurite, and an SFTP server; each laid the same files."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import json
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlparse

import asyncssh
from azure.storage.blob import (
    AccountSasPermissions,
    BlobServiceClient,
    ContainerClient,
    ResourceTypes,
    generate_account_sas,
)
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from tests.servers import azurite

ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Azurite's only account; its documentation gives the key."""


class Azurite:
    """Azurite's blob service with one container.

    :param certificate: path of a certificate's file, beside its key: served by HTTPS.
    """

    def __init__(self, folder: Path, certificate: Path | None = None) -> None:
        port = free_port()
        command = [azurite(), "--silent", "--skipApiVersionCheck", "--disableTelemetry"]
        command += ["--blobPort", str(port), "--location", str(folder)]
        if certificate:
            command += ["--cert", str(certificate), "--key", str(certificate.with_suffix(".key")), "--oauth", "basic"]
        self.host = f"127.0.0.1:{port}/{ACCOUNT}"
        self.url = f"{'https' if certificate else 'http'}://{self.host}"
        self.connection_string = (
            f"DefaultEndpointsProtocol={self.url.partition(':')[0]};AccountName={ACCOUNT};AccountKey={KEY};"
            f"BlobEndpoint={self.url};"
        )
        self._certificate = certificate
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, cwd=folder)
        wait_for(port)

    def sas(self) -> str:
        """A token that may list and read, and nothing else."""
        until = datetime.now(timezone.utc) + timedelta(hours=1)
        may, what = AccountSasPermissions(read=True, list=True), ResourceTypes(container=True, object=True)
        return generate_account_sas(ACCOUNT, KEY, what, may, until)

    @contextlib.contextmanager
    def container(self, name: str) -> Iterator[ContainerClient]:
        verify: Any = str(self._certificate) if self._certificate else True
        with BlobServiceClient.from_connection_string(self.connection_string, connection_verify=verify) as service:
            container = service.get_container_client(name)
            if not container.exists():
                container.create_container()
            yield container

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait(20)


class ManagedIdentity:
    """The endpoint by which Azure hands an app the tokens of its identity; Azurite takes one without a signature."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        identity = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                resource = parse_qs(urlparse(self.path).query).get("resource", [""])[0]
                allowed = self.headers.get("X-IDENTITY-HEADER") == identity.environment["IDENTITY_HEADER"]
                identity.asked.append(resource)
                body = json.dumps(_token(resource)).encode() if allowed else b"{}"
                self.send_response(200 if allowed else 401)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        url = f"http://127.0.0.1:{self._server.server_address[1]}/msi/token"
        self.environment = {"IDENTITY_ENDPOINT": url, "IDENTITY_HEADER": "of-the-app"}
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _token(resource: str) -> dict[str, Any]:
    now = int(time.time())
    claims = {"aud": resource, "iss": "https://sts.windows.net/tenant/", "iat": now, "nbf": now - 60, "exp": now + 3600}
    parts = [json.dumps(each).encode() for each in ({"typ": "JWT", "alg": "RS256"}, claims)]
    token = ".".join(base64.urlsafe_b64encode(each).decode().rstrip("=") for each in [*parts, b"no signature"])
    return {"access_token": token, "expires_on": str(now + 3600), "resource": resource, "token_type": "Bearer"}


class Sftp:
    """An SFTP server over a folder, which is its root; a password or the key of ``client_key`` opens it."""

    user, password = "erp", "sftp-password"

    def __init__(self, root: Path) -> None:
        self.root = root
        self.port = free_port()
        self.client_key = asyncssh.generate_private_key("ssh-ed25519")
        self._host_key = asyncssh.generate_private_key("ssh-ed25519")
        self.host_key = self._host_key.export_public_key().decode().strip()
        self._connections: list[asyncssh.SSHServerConnection] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(20)

    async def _listen(self) -> asyncssh.SSHAcceptor:
        outer = self

        class Logins(asyncssh.SSHServer):
            def connection_made(self, conn: asyncssh.SSHServerConnection) -> None:
                outer._connections.append(conn)

            def password_auth_supported(self) -> bool:
                return True

            def validate_password(self, username: str, password: str) -> bool:
                return (username, password) == (outer.user, outer.password)

        key = self.client_key.export_public_key().decode()
        return await asyncssh.listen(
            "127.0.0.1",
            self.port,
            server_host_keys=[self._host_key],
            server_factory=Logins,
            authorized_client_keys=asyncssh.import_authorized_keys(key),
            sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=os.fsencode(self.root)),
        )

    def connection(self, path: str, **changes: Any) -> dict[str, Any]:
        """The fields of connection instore_extracts, with changed ones."""
        extra = {"path": f"sftp://erp{path}", "host_key": self.host_key}
        fields = {"host": "127.0.0.1", "port": self.port, "login": self.user, "password": self.password}
        return {"conn_type": "sftp", **fields, "extra": extra, **changes}

    def stop(self) -> None:
        async def close() -> None:
            self._server.close()
            for connection in self._connections:
                connection.abort()
            for connection in self._connections:
                await connection.wait_closed()

        asyncio.run_coroutine_threadsafe(close(), self._loop).result(20)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(20)
        self._loop.close()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def wait_for(port: int, seconds: float = 60) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.1)
    raise AssertionError("the server does not listen")


def certificate(folder: Path) -> Path:
    """A certificate for loopback, signed by itself, and its key beside it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.now(timezone.utc)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / "server.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    no_password = serialization.NoEncryption()
    encoded = (serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, no_password)
    path.with_suffix(".key").write_bytes(key.private_bytes(*encoded))
    return path
