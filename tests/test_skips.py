"""What becomes of a test whose server is missing: it is named in the last line, and fails a run of the CI."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NEEDS_A_SERVER = """
import pytest
from tests.servers import needed

@pytest.fixture
def server():
    return needed("no-such-program", "Nothing (make nothing)")

def test_one(server): pass
def test_two(server): pass
def test_three(): pass
"""
SKIPS_FOR_NO_REASON = "import pytest\ndef test_one(): pytest.skip('later')\n"


def run(folder: Path, content: str, *options: str, ci: str = "") -> tuple[int, list[str]]:
    """Exit code and output of a suite of this content under the house's conftest."""
    (folder / "test_made.py").write_text(content)
    (folder / "pytest.ini").write_text("[pytest]\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "tests.conftest", "-q", *options, str(folder)],
        cwd=ROOT,
        env={**os.environ, "CI": ci, "PYTEST_ADDOPTS": "", "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_last_line_names_the_server_that_is_missing(tmp_path: Path, workers: str) -> None:
    code, lines = run(tmp_path, NEEDS_A_SERVER, "-n", workers)
    assert code == 0
    assert lines[-1] == "Skipped for want of Nothing (make nothing): 2 tests"


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_missing_server_fails_a_run_of_the_ci(tmp_path: Path, workers: str) -> None:
    code, lines = run(tmp_path, NEEDS_A_SERVER, "-n", workers, ci="true")
    assert code == 1
    assert lines[-1] == "Skipped for want of Nothing (make nothing): 2 tests"


def test_a_skip_for_any_other_reason_fails_everywhere(tmp_path: Path) -> None:
    code, lines = run(tmp_path, SKIPS_FOR_NO_REASON)
    assert code == 1
    assert "want of" not in lines[-1]
