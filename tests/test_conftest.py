"""What a run of the tests does by itself: slow ones first, versions where one fails."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

TESTS = """
import pytest

def test_quick():
    pass

@pytest.mark.slow
def test_slow():
    pass

@pytest.mark.slow(seconds=100)
def test_slowest():
    assert {right}
"""


@pytest.mark.slow
@pytest.mark.parametrize("right", [True, False])
def test_order_and_versions(right: bool, tmp_path: Path) -> None:
    here = Path(__file__)
    (tmp_path / "conftest.py").write_text(here.with_name("conftest.py").read_text())
    (tmp_path / "known_good.txt").write_text("# known\npytest==0.1\nno-such-package==2.0\n")
    (tmp_path / "test_some.py").write_text(TESTS.format(right=right))
    command = [sys.executable, "-m", "pytest", "-p", "no:xdist", "-vv", "-c", str(here.parents[1] / "pyproject.toml")]
    done = subprocess.run([*command, "--rootdir", tmp_path, tmp_path], capture_output=True, text=True, check=False)
    places = [done.stdout.index(name) for name in ("::test_slowest", "::test_slow ", "::test_quick")]
    assert places == sorted(places)
    assert done.returncode == (0 if right else 1)
    assert ("make PIN=1 test" in done.stdout) != right
    assert (f"pytest=={pytest.__version__} (known to work: 0.1)" in done.stdout) != right
    assert ("no-such-package==missing" in done.stdout) != right
