"""The stand-ins as processes: they start with one line, survive kill -9, end cleanly, and log nothing private."""

from __future__ import annotations

import csv
import json
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import requests

from .conftest import ROOT, STORE_KEY, SandboxProcess, Service, alive, event, eventually

Start = Callable[..., SandboxProcess]


def _store(url: str) -> Service:
    return Service(url, **{"Ocp-Apim-Subscription-Key": STORE_KEY})


def test_what_the_profile_store_answered_survives_kill_9_on_the_same_port(sandbox: Start, tmp_path: Path) -> None:
    first = sandbox("profile-store", "--port", "0", "--state", str(tmp_path))
    ready = first.ready()
    service = _store(ready["url"])
    for n in range(20):
        assert service.track_bulk(event(f"S{n}")).status_code == 200
    first.kill()
    sandbox("profile-store", "--port", str(ready["port"]), "--state", str(tmp_path)).ready()
    assert service.state()["track_ids"] == 20
    assert service.track_bulk(event("S20")).status_code == 200
    service.session.close()


def test_an_event_whose_answer_was_lost_survives_kill_9_too(sandbox: Start, tmp_path: Path) -> None:
    first = sandbox("profile-store", "--port", "0", "--state", str(tmp_path), "--set", 'script={"S1":["lost"]}')
    service = _store(first.ready()["url"])
    with pytest.raises(requests.ConnectionError):
        service.track_bulk(event("S1"))
    first.kill()
    service.session.close()
    again = _store(sandbox("profile-store", "--port", "0", "--state", str(tmp_path)).ready()["url"])
    assert again.events("Payload.orderNumber eq S1")["total"] == 1
    again.session.close()


def test_the_loyalty_api_comes_back_with_the_same_key(sandbox: Start, tmp_path: Path) -> None:
    members = tmp_path / "members.csv"
    with members.open("w", newline="") as file:
        csv.writer(file).writerows(
            [
                ("loyaltyCardNumber", "email", "firstName", "lastName", "status"),
                ("7", "a@example.com", "A", "B", "active"),
            ]
        )
    port = "0"
    for _ in range(2):
        process = sandbox("loyalty", "--port", port, "--state", str(tmp_path), "--members", str(members))
        ready = process.ready()
        key = json.loads((tmp_path / "keys.json").read_text())["loyalty_api_key"]
        answer = requests.get(ready["url"] + "/customers/by-loyalty-card/7", headers={"X-Api-Key": key}, timeout=5)
        assert answer.json()["email"] == "a@example.com"
        process.kill()
        port = str(ready["port"])


def test_keys_are_random_and_private(sandbox: Start, tmp_path: Path) -> None:
    for name in ("a", "b"):
        sandbox("profile-store", "--port", "0", "--state", str(tmp_path / name)).ready()
    a, b = (json.loads((tmp_path / name / "keys.json").read_text()) for name in ("a", "b"))
    assert not set(a.values()) & set(b.values())
    assert stat.S_IMODE((tmp_path / "a" / "keys.json").stat().st_mode) == 0o600


@pytest.mark.parametrize("command", ["loyalty", "profile-store", "servicebus"])
def test_a_port_in_use_is_one_sentence_and_exit_code_2(sandbox: Start, tmp_path: Path, command: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        code, out, err = sandbox(command, "--port", port, "--state", str(tmp_path)).finish()
    assert (code, out, len(err.splitlines())) == (2, "", 1)
    assert port in err


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_service_with_exit_code_0(sandbox: Start, tmp_path: Path, number: signal.Signals) -> None:
    process = sandbox("profile-store", "--port", "0", "--state", str(tmp_path))
    process.ready()
    process.process.send_signal(number)
    assert process.finish() == (0, "", "")


def test_no_card_email_or_payload_is_in_any_output(sandbox: Start, tmp_path: Path) -> None:
    store = sandbox("profile-store", "--port", "0", "--state", str(tmp_path))
    loyalty = sandbox("loyalty", "--port", "0", "--state", str(tmp_path))
    service = _store(store.ready()["url"])
    service.track_bulk(event("SECRET"), event("SECRET", eventTime="SECRET"))
    service.track_bulk(event("SECRET", user={"email": "SECRET@example.com"}))
    service.post("/api/v1.0/Track", data='{"SECRET', headers={"Content-Type": "application/json"})
    service.get("/api/v1.0/trackevents/", params={"$filter": "User.Email eq SECRET"})
    service.session.close()
    requests.get(loyalty.ready()["url"] + "/customers/by-loyalty-card/SECRET", timeout=5)
    with socket.create_connection(("127.0.0.1", int(service.url.rpartition(":")[2]))) as connection:
        connection.sendall(b"SECRET\r\n\r\n")
        connection.recv(1000)
    for process in (store, loyalty):
        _, out, err = process.terminate()
        assert "SECRET" not in out + err


def test_a_crash_inside_is_told_without_what_was_sent(sandbox: Start, tmp_path: Path) -> None:
    process = sandbox("profile-store", "--port", "0", "--state", str(tmp_path))
    service = _store(process.ready()["url"])
    # An offset past the end of a sqlite integer is a real way to make it fail.
    answer = service.get("/sandbox/events", params={"after": "1234567890123456789012"})
    service.session.close()
    assert answer.status_code == 500
    _, _, err = process.terminate()
    assert "OverflowError while answering" in err
    assert "1234567890123456789012" not in err


def test_a_wrong_setting_is_one_sentence_and_exit_code_2(sandbox: Start, tmp_path: Path) -> None:
    code, _, err = sandbox("loyalty", "--port", "0", "--state", str(tmp_path), "--set", "share=2").finish()
    assert (code, err) == (2, "share: Input should be less than or equal to 1\n")


def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    # A parent that starts a stand-in, tells its pid, and waits to be killed.
    script = (
        "import os, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-m', 'sandbox', 'profile-store', '--port', '0',\n"
        f"    '--state', {str(tmp_path)!r}, '--parent', str(os.getpid())], stdout=subprocess.PIPE)\n"
        "print(child.stdout.readline().decode(), end='', flush=True)\n"
        "child.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        child = json.loads(parent.stdout.readline())["pid"]
        assert alive(child)
        parent.kill()
        assert eventually(lambda: not alive(child))


def test_the_help_names_every_command(sandbox: Start) -> None:
    code, out, _ = sandbox("--help").finish()
    assert code == 0
    for command in ("up", "servicebus", "loyalty", "profile-store", "seed", "faults", "state"):
        assert f" {command} " in out
