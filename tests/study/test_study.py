"""Study parameters, grids and what is timed."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from advprune_core.base.settings import ConfigError
from advprune_core.pruners.random import Full
from advprune_core.study import execution
from advprune_core.study.execution import CarriedOut
from advprune_core.study.grid import grid, study_grid, timed_entries
from advprune_core.study.study import Study, StudyConfig, read_profile, study_config
from advprune_core.trainers.config import RunConfig
from tests.tiny import tiny_study


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epoch": 3}, "did you mean 'epochs'"),
        ({"fractions": [0]}, "greater than 0"),
        ({"fractions": [1.5]}, "less than or equal to 1"),
        ({"fractions": [0.5, 0.5]}, "repeated"),
        ({"seeds": []}, "at least 1"),
        ({"seeds": [1, 1]}, "repeated"),
        ({"pruners": ["randm"]}, "did you mean 'random'"),
        ({"pruners": ["random", "random"]}, "twice"),
        ({"controls": ["same"]}, "same_cost"),
        ({"trainer": "pgd"}, "did you mean 'pgd_at'"),
        ({"model": {"small_cnn": {"widht": 3}}}, "did you mean 'width'"),
        ({"dataset": "digit"}, "did you mean 'digits'"),
        ({"evaluation": ["pdg"]}, "did you mean 'pgd'"),
        ({"evaluation": ["pgd", "pgd"]}, "twice"),
        ({"settings": {"optimisation.emma": 0.9}}, "did you mean 'ema'"),
        ({"eps": "8/0"}, "8/255"),
        ({"engine": "threads"}, "serial"),
        ({"study": "../x"}, "pattern"),
        ({"steps": 0}, "greater than or equal to 1"),
        ({"workers": 0}, "greater than or equal to 1"),
        ({"norm": "l3"}, "allowed: l2, linf"),
    ],
    ids=str,
)
def test_bad_parameters(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study_config(parameters)


def test_parameters_reach_the_runs() -> None:
    config = study_config(
        {
            "model": {"small_cnn": {"width": 8}},
            "trainer": "standard",
            "norm": "L2",
            "eps": "1/2",
            "steps": 3,
            "epochs": 2,
            "batch_size": 32,
            "lr": 0.05,
            "threads": 2,
            "settings": {"optimisation.ema": 0.9, "best_every": 2},
        }
    ).base_config()
    expected = RunConfig.flat(
        model={"small_cnn": {"width": 8}}, objective="standard", norm="l2", eps=0.5, steps=3, epochs=2,
        batch_size=32, lr=0.05, threads=2, ema=0.9, best_every=2, start="random",
    )  # fmt: skip
    assert config == expected


#: Of every parameter of a study another value than its default.
CHANGED: dict[str, Any] = {
    "study": "another",
    "dataset": {"digits": {"limit": 300}},
    "model": {"small_cnn": {"width": 8}},
    "trainer": "trades",
    "norm": "l2",
    "eps": "1/16",
    "steps": 3,
    "epochs": 2,
    "batch_size": 32,
    "lr": 0.05,
    "settings": {"optimisation.ema": 0.9},
    "variants": {"FGSM": {"trainer": "fgsm"}},
    "pruners": ["redraw"],
    "fractions": [1.0, 0.5],
    "controls": [],
    "seeds": [7],
    "evaluation": ["fgsm"],
    "images": 10,
    "parts": [{"fractions": [0.5]}],
    "device": "cuda",
    "threads": 2,
}


@pytest.mark.parametrize("name", CHANGED)
def test_no_parameter_of_a_study_is_ignored(name: str) -> None:
    """Each changes a run, a test, or which runs there are; the name alone only where tables and figures go."""
    assert set(CHANGED) == set(Study.model_fields)
    usual, other = study_config({}), study_config({name: CHANGED[name]})
    assert (study_grid(other) == study_grid(usual)) == (name == "study")
    assert (other.folder == usual.folder) == (name != "study")


def test_all_that_a_study_says_of_its_execution_reaches_it() -> None:
    values = {"timed_repeats": 3, "engine": "ray", "workers": 2, "address": "auto", "resources": {"CPU": 1.0}}
    values |= {"data": "d", "results": "r", "any_device": True}
    assert set(values) == set(CarriedOut.model_fields)
    reached = study_config(values).execution
    assert {name: getattr(reached, name) for name in values} == values
    assert all(field.description for field in StudyConfig.model_fields.values())


def test_all_that_is_said_of_execution_is_read() -> None:
    """A field that nothing reads would be a promise that is not kept."""
    folder = Path(execution.__file__).parent
    sources = "".join(path.read_text() for path in folder.glob("*.py"))
    read = re.findall(r"\b(?:execution|ex)\.(\w+)", sources)
    read += re.findall(r"\bself\.(\w+)", (folder / "execution.py").read_text())
    assert set(CarriedOut.model_fields) <= set(read)


def test_grid_has_every_point_once() -> None:
    entries = grid(
        RunConfig(), pruners=["random", "redraw"], fractions=[1.0, 0.4], seeds=[0, 7], controls=["same_cost"]
    )
    points = {(entry.arm, entry.fraction, entry.seed) for entry in entries}
    arms = ["random", "redraw", "same_cost(random)", "same_cost(redraw)"]
    assert points == {(arm, f, s) for arm in arms for f in (1.0, 0.4) for s in (0, 7)}
    assert len(points) == len(entries)
    for entry in entries:
        assert entry.config.seed == entry.seed
        assert isinstance(entry.config.pruner, Full) == (entry.fraction == 1)
        assert entry.derived == (entry.control is not None and entry.fraction < 1)
    full = {entry.identity() for entry in entries if entry.fraction == 1 and entry.seed == 0}
    assert len(full) == 1, "all arms share the run on full data"


def test_variants_multiply_the_grid(tmp_path: Path) -> None:
    ways = {"one": {"trainer": "fgsm_pgi", "optimisation.lr": 0.2}, "two": {"attack.start": "carried"}}
    plain = study_grid(tiny_study(tmp_path))
    entries = study_grid(tiny_study(tmp_path, variants=ways))
    assert len(entries) == 2 * len(plain)
    for variant, trainer, lr in (("one", "fgsm_pgi", 0.2), ("two", "pgd_at", 0.1)):
        own = [entry for entry in entries if entry.variant == variant]
        assert [e.arm for e in own] == [f"{variant}: {e.arm}" for e in plain]
        assert [(e.fraction, e.seed, e.control) for e in own] == [(e.fraction, e.seed, e.control) for e in plain]
        assert {e.config.objective.name for e in own} == {trainer}
        assert {e.config.optimisation.lr for e in own} == {lr}
        assert {e.config.attack.start.name for e in own} == {"carried"}
    assert len({entry.identity() for entry in entries}) == 2 * len({entry.identity() for entry in plain})


def test_settings_hold_for_all_variants_and_yield_to_their_own(tmp_path: Path) -> None:
    ways = {"a": {"trainer": "trades"}, "b": {"trainer": "trades", "objective.label_smoothing": 0.3}}
    config = tiny_study(tmp_path, settings={"objective.label_smoothing": 0.1}, variants=ways)
    objectives = {name: way.objective for name, way in config.ways().items()}
    assert {name: (o.name, o.label_smoothing) for name, o in objectives.items()} == {
        "a": ("trades", 0.1),
        "b": ("trades", 0.3),
    }


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"": {}}, "is no name"),
        ({"a: b": {}}, "is no name"),
        ({"a": {"fraction": 0.5}}, "'a' sets 'fraction', which is the grid's: use fractions"),
        ({"a": {"pruner.every": 1}}, "sets 'pruner.every', which is the grid's: use pruners"),
        ({"a": {"trainer": "fats"}}, "variants: 'a'.*did you mean 'fast'"),
        ({"a": {"attack.stpes": 1}}, "did you mean 'steps'"),
        ({"a": {"trainer": "fast", "attack.steps": 5}}, "takes one step"),
    ],
    ids=str,
)
def test_bad_variants(variants: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study_config({"variants": variants})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pruner": "keep_easy"}, "the settings set 'pruner', which is the grid's: use pruners"),
        ({"pruner.balanced": True}, r"'pruner.balanced', .* use pruners \(a pruner with a setting"),
        ({"seed": 3}, "use seeds"),
        ({"fraction": 0.3}, "use fractions"),
    ],
)
def test_settings_leave_the_grid_alone(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study_config({"settings": settings})


def test_parts_are_grids_of_their_own_in_one_study(tmp_path: Path) -> None:
    ways = {"one": {"trainer": "fgsm"}, "noisy": {"dataset": {"digits": {"limit": 400}}}}
    config = tiny_study(
        tmp_path,
        variants=ways,
        images=50,
        parts=[
            {"variants": ["one"], "fractions": [1.0], "seeds": [5], "evaluation": ["pgd"], "images": 20},
            {"pruners": ["redraw"], "controls": [], "fractions": [0.4]},
        ],
    )
    entries = study_grid(config)
    assert [(e.part, e.arm, e.fraction, e.seed) for e in entries] == [
        (0, "one: random", 1.0, 5),
        (0, "one: same_cost(random)", 1.0, 5),
        *[(1, f"{name}: redraw", 0.4, seed) for seed in (0, 1) for name in ways],
    ]
    assert {(e.part, e.images, e.attacks[0].label()) for e in entries} == {(0, 20, "pgd40"), (1, 50, "pgd2")}
    assert {(e.variant, e.config.dataset.limit) for e in entries} == {("one", 300), ("noisy", 400)}


def test_what_two_parts_share_is_there_once_and_tested_in_one_way(tmp_path: Path) -> None:
    shared = [{"fractions": [1.0, 0.4]}, {"fractions": [0.4], "controls": []}]
    assert study_grid(tiny_study(tmp_path, parts=shared)) == study_grid(tiny_study(tmp_path))
    with pytest.raises(ConfigError, match=r"part 1 and part 2 both have random 40 % seed 0, and test it in two ways"):
        study_grid(tiny_study(tmp_path, parts=[shared[0], {**shared[1], "images": 7}]))


@pytest.mark.parametrize(
    ("part", "message"),
    [
        ({"fraction": [0.5]}, "part 2: unknown part parameter 'fraction' (did you mean 'fractions'?)"),
        ({"epochs": 3}, "unknown part parameter 'epochs'"),
        ({"parts": []}, "unknown part parameter 'parts'"),
        ({"variants": ["tow"]}, "unknown variant 'tow' (did you mean 'two'?)"),
        ({"fractions": [0.5, 0.5]}, "part 2: fractions has repeated values"),
        ({"images": 0}, "images"),
    ],
    ids=str,
)
def test_bad_parts(part: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        study_config({"variants": {"one": {}, "two": {"trainer": "trades"}}, "parts": [{}, part]})


def test_timed_runs_are_the_first_seeds_in_random_order(tmp_path: Path) -> None:
    entries = study_grid(tiny_study(tmp_path, fractions=[1.0, 0.8, 0.6, 0.4, 0.2], seeds=[3, 4]))
    timed = timed_entries(entries, repeats=1)
    assert {(e.seed, e.control) for e in timed} == {(3, None)}
    order = [entry.fraction for entry in timed]
    assert sorted(order) == [0.2, 0.4, 0.6, 0.8, 1.0]
    assert order != sorted(order)
    assert order != sorted(order, reverse=True)
    assert timed_entries(entries, repeats=0) == []


@pytest.mark.parametrize(
    ("text", "message"), [("a: [", "cannot be read: line 1"), ("- 1\n", "name: value"), (None, "cannot be read")]
)
def test_bad_profiles(tmp_path: Path, text: str | None, message: str) -> None:
    path = tmp_path / "profile.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError, match=message):
        read_profile(path)


def test_images_kept_of_each_class_reach_the_pruned_runs(tmp_path: Path) -> None:
    grid = study_grid(tiny_study(tmp_path, settings={"min_per_class": 7}))
    assert {(entry.config.fraction, entry.config.min_per_class) for entry in grid} == {(1.0, 0), (0.4, 7)}
