"""What people and machines may type: a value comes out, or one sentence, and nothing else.

Fixed seed; each example of a mistake that was once found stands in a table by its name.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from advprune_core.base.settings import AdvpruneError
from advprune_core.cli.options import assignments, value_of
from advprune_core.study.executed import study_of
from advprune_core.study.grid import study_grid
from advprune_core.study.notebooks import find_notebook
from advprune_core.study.study import StudyConfig, read_profile, study_config
from advprune_core.trainers.config import RunConfig, flat_fields

PROFILES = sorted((Path(__file__).parents[1] / "notebooks" / "profiles").glob("*.yaml"))
fuzz = settings(derandomize=True, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])


@contextlib.contextmanager
def only_sentences() -> Any:
    """Let pass what is refused with a sentence; anything else is a failure."""
    try:
        yield
    except AdvpruneError as error:
        text = str(error)
        assert text.strip(), "an error without words"
        assert "Traceback" not in text
        assert len(text) < 5000


ODDITIES: list[Any] = [
    *(True, -1, 0, 1.0, 10**30, 10**400, 2**32, 2**63, 1e-300, 1e300, float("nan"), float("inf"), np.int64(3), None),
    *("1_0", "１０", " 5", "12:30", "8/255", "8/0", "none", "yes", "os:system", "a:b", ":", "", "pgd_at", "random"),
    *({}, [], {"random": {"cls": 1}}, {"fixed": {"count": True}}, {1: 2}, {"score": {"keep": {"stratified": None}}}),
]
VALUES = st.sampled_from(ODDITIES) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)


def named(names: list[str]) -> st.SearchStrategy[dict[str, Any]]:
    """Some settings, mostly of known names."""
    return st.dictionaries(st.sampled_from(names) | st.text(max_size=8), VALUES, max_size=4)


@given(named([*flat_fields(), "trainer"]))
@fuzz
def test_configurations_by_flat_names(options: dict[str, Any]) -> None:
    with only_sentences():
        config = RunConfig.flat(**options)
        assert RunConfig.create(**config.model_dump(mode="json")) == config


@given(named(list(RunConfig.model_fields)))
@fuzz
def test_configurations_as_groups(options: dict[str, Any]) -> None:
    with only_sentences():
        RunConfig.create(**options)


@given(
    named(
        [*flat_fields().values(), "trainer", "attack", "attack.steps.count", "pruner.balanced", "model.width", "a.b.c"]
    )
)
@fuzz
def test_configurations_by_paths(changes: dict[str, Any]) -> None:
    with only_sentences():
        RunConfig().with_settings(changes)


@given(named(list(StudyConfig.model_fields)))
@fuzz
def test_configurations_of_studies(parameters: dict[str, Any]) -> None:
    with only_sentences():
        study_grid(study_config(parameters))


@given(st.text(alphabet=st.characters(codec=None), max_size=40))
@fuzz
def test_values_of_the_command_line(text: str) -> None:
    with only_sentences():
        value_of(text)
    with only_sentences():
        assignments([text])


@pytest.mark.parametrize("name", flat_fields())
def test_configurations_with_one_odd_value(name: str) -> None:
    for value in ODDITIES:
        with only_sentences():
            RunConfig.flat(**{"pruner": "random", "fraction": 0.5, name: value})
        with only_sentences():
            RunConfig(pruner="random", fraction=0.5).with_settings({flat_fields()[name]: value})


@pytest.mark.parametrize("name", StudyConfig.model_fields)
def test_configurations_of_studies_with_one_odd_value(name: str) -> None:
    for value in ODDITIES:
        for given_value in (value, [value], {"a": value}, {"small_cnn": value}):
            with only_sentences():
                study_grid(study_config({"seeds": [0], name: given_value}))


def read(path: Path) -> None:
    """All that is done with a profile before any work."""
    parameters, notebooks = read_profile(path)
    for name in notebooks:
        study_grid(study_of(find_notebook(name), parameters))
    if not notebooks:
        study_grid(study_config(parameters))


@given(st.binary(max_size=200) | st.text(max_size=100).map(lambda text: text.encode("utf-8", "surrogatepass")))
@fuzz
def test_profiles_of_any_bytes(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    with only_sentences():
        read(path)


SNIPPETS = st.sampled_from(
    [
        *"\t[]{}|>!,#~'\"\n\ufeff\0",
        *(": ", "- ", "? ", "&a ", "*a", "!!int ", "\n  ", "---\n", "%YAML 1.1\n", "::"),
        *("010", "12:30", "yes", "1_0", "true", ".nan", "1e400", "seeds: [0]\n"),
    ]
)


@given(
    st.sampled_from(PROFILES), st.lists(st.tuples(st.floats(0, 1), SNIPPETS, st.integers(0, 9)), min_size=1, max_size=4)
)
@fuzz
def test_profiles_that_are_nearly_right(tmp_path: Path, profile: Path, edits: list[tuple[float, str, int]]) -> None:
    text = profile.read_text()
    for where, snippet, dropped in edits:
        place = int(where * len(text))
        text = text[:place] + snippet + text[place + dropped :]
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with only_sentences():
        read(path)


def test_the_profiles_themselves_are_right() -> None:
    for path in PROFILES:
        read(path)


#: A profile, and what comes of it: a parameter's value, or the message.
PROFILE_CASES: dict[str, tuple[str | bytes, Any]] = {
    "010 is 10": ("batch_size: 010", {"batch_size": 10}),
    "0o10 is 8": ("batch_size: 0o10", {"batch_size": 8}),
    "12:30 is no number": ("epochs: 12:30", "epochs = '12:30'"),
    "12:30 is no seed": ("seeds: [12:30]", "seeds.0 = '12:30'"),
    "duplicate keys": (
        "epochs: 3\nlr: 0.1\nepochs: 30",
        "p.yaml cannot be read: line 3: the key 'epochs' stands twice",
    ),
    "duplicate keys inside": ("model: {small_cnn: {width: 4, width: 8}}", "line 1: the key 'width' stands twice"),
    "yes is a string": ("study: yes", {"study": "yes"}),
    "no is a string": ("study: no", {"study": "no"}),
    "yes is no truth": ("settings: {optimisation.flip: yes}", "flip = 'yes'"),
    "a date is a string": ("study: 2026-11-26", {"study": "2026-11-26"}),
    "not UTF-8": ("study: größe".encode("latin-1"), "p.yaml cannot be read: line 1: it is not UTF-8"),
    "with a BOM": (b"\xef\xbb\xbfepochs: 3", {"epochs": 3.0}),
    "keys that are no names": ("1: 2", "line 1: the key '1' is not a name"),
    "keys of a setting that are no names": ("model: {small_cnn: {1: 2}}", "line 1: the key '1' is not a name"),
    "deep nesting": ("a: " + "[" * 100_000, "line 1: lists and mappings are nested more than 20 deep"),
    "an alias bomb": ("a: &a [1]\nb: &b [*a, *a]", "line 2: the alias"),
    "code": ("study: !!python/object/apply:os.system [ls]", "line 1: the tag"),
    "two documents": ("epochs: 3\n---\nepochs: 4", "line 2: .*another document"),
    "a tab": ("model:\n\tsmall_cnn", "line 2: .*token"),
    "a list": ("- epochs: 3", "must be a list of 'name: value' lines"),
    "nothing": ("", "must be a list of 'name: value' lines"),
    "True is no seed": ("seeds: [true]", "seeds.0 = True"),
    "1_0 is no seed": ("seeds: [1_0]", "seeds.0 = '1_0'"),
    "1_0 is no number": ("epochs: 1_0", "epochs = '1_0'"),
    "full-width digits": ("seeds: [１]", "seeds.0 = '１'"),
    "10^30": (f"seeds: [{10**30}]", f"seeds.0 = {10**30}"),
    "1.0 is no seed": ("seeds: [1.0]", r"seeds.0 = 1\.0"),
    "a seed in quotes": ("seeds: [' 1']", "seeds.0 = ' 1'"),
    "2^32": ("seeds: [4294967296]", "seeds.0 = 4294967296"),
    "eps 8": ("eps: 8", "eps = 8 is more than the whole range of a pixel"),
    "eps 8 in L2": ("{eps: 8, norm: l2}", {"eps": 8.0}),
    "eps 10^6 in L2": ("{eps: 1e6, norm: l2}", "eps = 1000000.0: Input should be less than or equal to 100"),
    "lr infinity": ("lr: .inf", "lr = inf"),
    "lr 1e400": ("lr: 1e400", "lr = inf"),
    "lr 1e30": ("lr: 1e30", "lr = 1e[+]30: Input should be less than or equal to 100"),
    "lr nan": ("lr: .nan", "lr = nan"),
    "a batch of 10^9": ("batch_size: 1000000000", "batch_size = 1000000000"),
    "none": ("{eps: none, workers: none, results: none, steps: none}", {"eps": None, "workers": None, "results": None}),
    "a factory that is none": ("model: {'os:system': {command: ls}}", "cannot import 'os:system'"),
    "cls is no setting": ("pruners: [{random: {cls: 1}}]", "unknown setting 'cls'"),
    "threads of another machine": ("threads: 64", {"threads": 64}),
    "a device of another machine": ("device: cuda", {"device": "cuda"}),
}


@pytest.mark.parametrize("case", PROFILE_CASES)
def test_profiles_by_name(case: str, tmp_path: Path) -> None:
    text, expected = PROFILE_CASES[case]
    path = tmp_path / "p.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    if isinstance(expected, dict):
        config = study_config(read_profile(path)[0])
        found = {name: getattr(config, name) for name in expected}
        assert found == expected
        assert [type(value) for value in found.values()] == [type(value) for value in expected.values()]
    else:
        with pytest.raises(AdvpruneError, match=expected):
            study_config(read_profile(path)[0])


#: Options of `advprune run`, and the value of a field or the message.
OPTION_CASES: dict[str, tuple[str, str, Any]] = {
    "--ema none": ("ema", "none", None),
    "--ema None": ("ema", "None", None),
    "--ema null": ("ema", "null", None),
    "--eps none": ("eps", "none", 2 / 16),
    "--eps 8/255": ("eps", "8/255", 8 / 255),
    "--cost-budget none": ("cost_budget", "none", None),
    "--flip true": ("flip", "true", True),
    "--flip yes": ("flip", "yes", "flip = 'yes'"),
    "--flip 1": ("flip", "1", "flip = 1"),
    "--seed none": ("seed", "none", "seed = 'none'"),
    "--seed true": ("seed", "true", "seed = True"),
    "--seed 1_0": ("seed", "1_0", "seed = '1_0'"),
    "--seed 010": ("seed", "010", 10),
    "--seed 1.0": ("seed", "1.0", r"seed = 1\.0"),
    "--seed ''": ("seed", "", "seed = None"),
    "--epochs 12:30": ("epochs", "12:30", "epochs = '12:30'"),
    "--lr 1e-1": ("lr", "1e-1", 0.1),
    "--steps 7.0": ("steps", "7.0", "steps"),
    "--model os:system": ("model", "{'os:system': {command: ls}}", "cannot import 'os:system'"),
    "--threads 10^30": ("threads", str(10**30), "threads = 1000"),
}


@pytest.mark.parametrize("case", OPTION_CASES)
def test_options_by_name(case: str) -> None:
    name, text, expected = OPTION_CASES[case]
    if isinstance(expected, str):
        with pytest.raises(AdvpruneError, match=expected):
            RunConfig.flat(**{name: value_of(text)})
    else:
        found: Any = RunConfig.flat(**{name: value_of(text)})
        for part in flat_fields()[name].split("."):
            found = getattr(found, part)
        assert found == expected
