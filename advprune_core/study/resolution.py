"""Which run, and which test of it, each entry of a grid is."""

from __future__ import annotations

from collections.abc import Sequence, Set

from advprune_core.datasets.splits import Dataset
from advprune_core.study.compiling import tested_thing
from advprune_core.study.elsewhere import found, tests_that_count
from advprune_core.study.evaluations import EvaluationConfig
from advprune_core.study.execution import Execution
from advprune_core.study.grid import Datasets, Entry
from advprune_core.study.store import RunStore
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.controls import expected_passes


class Resolution:
    """The entries of a grid, with their data, and the keys of their runs and tests.

    Parameters
    ----------
    entries : sequence of Entry
    datasets : mapping of DatasetSource to Dataset
        Of the entries, from `check_entries`.
    store : RunStore
    execution : Execution
        Engine, workers, folders, timings, and whether runs of other devices count.
    plain_tests : set of str
        What has to be tested by plain passes, though it was trained by compiled ones (see `compiling`).

    Attributes
    ----------
    keys : dict of int to str
        Key of each entry that is resolved, by its place in `entries`.
    """

    def __init__(
        self,
        entries: Sequence[Entry],
        datasets: Datasets,
        store: RunStore,
        execution: Execution,
        *,
        plain_tests: Set[str] = frozenset(),
    ) -> None:
        self.entries, self.datasets = list(entries), datasets
        self.store, self.execution = store, execution
        self.keys: dict[int, str] = {}
        self._plain_tests = set(plain_tests)
        self._found: dict[tuple[str, str], RunConfig] = {}

    def dataset(self, config: RunConfig) -> Dataset:
        """The data that a run is trained and tested on."""
        return self.datasets[config.dataset]

    def key(self, config: RunConfig) -> str:
        """Key of a run."""
        return config.train_key(self.dataset(config))

    def found(self, config: RunConfig, test: EvaluationConfig) -> RunConfig:
        """The run that counts as this one, in one session the same one: see `elsewhere`."""
        data = self.dataset(config)
        key = self.key(config), test.key(data.test_hash)
        if key not in self._found:
            self._found[key] = found(config, test, data, self.store, self.execution)
        return self._found[key]

    def passes(self, config: RunConfig) -> float:
        """Forward-equivalents that training a run is expected to take."""
        return config.passes(len(self.dataset(config).train))

    def control_passes(self, number: int) -> float:
        """The same of a control whose run is not trained yet."""
        entry = self.entries[number]
        assert entry.control is not None
        return expected_passes(entry.control, entry.config, len(self.dataset(entry.config).train))

    def evaluation(self, number: int) -> EvaluationConfig:
        """How the entry in a place is tested: at the speed of its run, if that was done before or can be done here."""
        entry, key = self.entries[number], self.keys[number]
        wanted, test_hash = entry.evaluation, self.dataset(entry.config).test_hash
        plainly = wanted.speed == "compiled" and tested_thing(entry) in self._plain_tests
        if plainly or self.execution.any_device:
            for done in tests_that_count(wanted, any_device=self.execution.any_device):
                if self.store.evaluation(key, done.key(test_hash)) is not None:
                    return done
        return wanted.replace(speed="exact") if plainly else wanted

    def test_plainly(self, number: int) -> None:
        """From now on, the network and data of an entry are tested by plain passes: compiled ones failed."""
        self._plain_tests.add(tested_thing(self.entries[number]))

    def evaluation_key(self, number: int) -> str:
        """Key of how the entry in a place is tested."""
        return self.evaluation(number).key(self.dataset(self.entries[number].config).test_hash)

    def finished(self) -> tuple[int, int]:
        """How many runs of the grid are trained, by now or before, and how many there are."""
        trained = sum(self.store.finished(key) is not None for key in set(self.keys.values()))
        return trained, len({entry.identity() for entry in self.entries})
