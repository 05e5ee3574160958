"""What all tests share: the embedded data set, tiny networks, a folder for results."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from textwrap import fill
from typing import Any

import pytest
import torch

from advprune_core.attacks import compiled
from advprune_core.datasets.base import load_dataset
from advprune_core.datasets.splits import Dataset

with suppress(ModuleNotFoundError):  # the tests of a GPU run without it
    import hypothesis

    # Nothing is timed in tests: on a busy machine an example takes as long as it takes.
    hypothesis.settings.register_profile("untimed", deadline=None, derandomize=True)
    # Other examples in each run, and more of them: what a person looks for faults with, not what a commit waits for.
    hypothesis.settings.register_profile("search", deadline=None, max_examples=1000)
    hypothesis.settings.load_profile("untimed")

KNOWN_GOOD = Path(__file__).with_name("known_good.txt")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, the slowest before all: what is left at the end is short, for every worker."""

    def place(item: pytest.Item) -> float:
        slow = item.get_closest_marker("slow")
        return 0.0 if slow is None else -slow.kwargs.get("seconds", 10.0)

    items.sort(key=place)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, exitstatus: int) -> None:
    """After failures, the versions of all packages: a newer release of one may be the reason."""
    if exitstatus != pytest.ExitCode.TESTS_FAILED:
        return
    known = [line.split("==") for line in KNOWN_GOOD.read_text().splitlines() if not line.startswith("#")]
    lines = []
    for name, good in known:
        try:
            here = version(name)
        except PackageNotFoundError:
            here = "missing"
        lines.append(f"{name}=={here}" + ("" if here.partition("+")[0] == good else f" (known to work: {good})"))
    terminalreporter.section("versions; `make PIN=1 test` takes those that are known to work")
    terminalreporter.write_line(fill(", ".join(lines), 120))


@pytest.fixture(autouse=True)
def _isolated(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test reads or writes the user's results or data."""
    monkeypatch.setenv("ADVPRUNE_RESULTS", str(tmp_path / "results"))
    monkeypatch.delenv("ADVPRUNE_DATA", raising=False)
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The embedded digits."""
    return load_dataset("digits")


@pytest.fixture
def forgotten() -> Iterator[None]:
    """What a test compiles with another backend is not for the next one."""
    yield
    compiled._passes.clear()
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch, forgotten: None) -> None:
    """Everything but the C++ compiler, which takes most of a minute: the traced graphs, run by PyTorch."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))


@pytest.fixture
def no_compiler(monkeypatch: pytest.MonkeyPatch, forgotten: None) -> None:
    """A machine on which nothing compiles."""

    def refuse(graph: Any, inputs: Any) -> Any:
        raise RuntimeError("there is no C++ compiler")

    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=refuse))
