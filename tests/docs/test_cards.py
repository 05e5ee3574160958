"""A component's page: where it is from, what it costs, what was measured with it, and nothing of another's."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from pydantic import Field

from advprune_core.analysis.cells import component_name
from advprune_core.analysis.summaries import printable
from advprune_core.base.components import Component
from advprune_core.cli.catalogue import registries
from advprune_core.trainers.config import RunConfig
from docs.cards import as_rst, card, of, rows_with, settings_of

MEMBERS = [
    (family, name, component)
    for family, registry in registries().items()
    for name, component in registry.classes().items()
    if component.__module__.startswith("advprune_core.")
]
METHODS = [member for member in MEMBERS if member[0] in ("pruners", "attacks", "objectives", "starts")]
#: No paper's: all images, chance, an image itself, ordinary training, knowledge that nobody has.
NOBODYS = {"full", "random_steps", "redraw", "oracle", "standard"}


@pytest.mark.parametrize(("family", "name", "component"), METHODS, ids=lambda part: str(part)[:20])
def test_a_method_says_where_it_is_from_and_what_it_costs(family: str, name: str, component: type[Component]) -> None:
    page = card(family, name, component).partition("## Results")[0]
    assert name in NOBODYS or re.search(r"\b(19|20)\d\d\b|arxiv\.org", page), "which paper?"
    assert re.search(r"forward-equivalent|\d an? (image|replay)|[Nn]o cost|Cost: as|1 / fraction|2k ?\+ ?1", page)


@pytest.mark.parametrize(("family", "name", "component"), MEMBERS, ids=lambda part: str(part)[:20])
def test_a_page_has_every_setting_and_a_command_that_works(family: str, name: str, component: type[Component]) -> None:
    page = card(family, name, component)
    for setting in component.model_fields:
        assert f"\n| {setting} |" in page
    if command := re.search(r"`advprune run --(\w+) (\w+)`", page):
        option: dict[str, Any] = {command[1]: command[2]}
        RunConfig.flat(**option)
    else:
        assert family in ("attacks", "keep_rules") or any(f.is_required() for f in component.model_fields.values())


def test_what_a_setting_allows() -> None:
    class Example(Component):
        share: Annotated[float, Field(gt=0, le=1, description="of all")] = 0.5
        how: Literal["a", "b"] = "a"
        strict: bool = False
        count: int

    assert [(row["setting"], row["default"], row["allowed"]) for row in settings_of(Example)] == [
        ("share", "0.5", "> 0, <= 1"),
        ("how", "a", "a, b"),
        ("strict", "False", "True, False"),
        ("count", "required", ""),
    ]


def test_papers_are_links_and_numbers_are_not() -> None:
    text = as_rst("MEP (2207.08859), as 0.2207, 1234.5678 and https://arxiv.org/abs/2001.03994.")
    assert text.count("https://arxiv.org/abs/") == 2
    assert "`2207.08859 <https://arxiv.org/abs/2207.08859>`__" in text


def test_results_are_the_rows_of_the_studies() -> None:
    found = rows_with("pruners", "craig", "pruners")
    table = of("pruners")
    own = table[table["pruner"].map(component_name) == "craig"]
    assert set(found["arm"]) == {*own["arm"], *(f"same_cost({arm})" for arm in own["arm"])}
    shown = printable(table)
    for column in shown:
        assert found[column].tolist() == shown[shown["arm"].isin(found["arm"])][column].tolist()


def test_results_never_mix_threat_models() -> None:
    found, table = rows_with("objectives", "pgd_at", "carried"), of("carried")
    assert len(set(found["data, threat model"])) == 2
    for arm, place in found[["arm", "data, threat model"]].itertuples(index=False):
        (eps,) = set(table[table["arm"] == arm]["eps"])
        assert place == f"digits, L-inf {16 * eps:g}/16"


def test_results_of_a_trainer_are_of_its_preset_alone() -> None:
    table = of("trainers")
    for name in ("fgsm", "n_fgsm", "fast", "pgd_at", "trades"):
        config = RunConfig.flat(trainer=name)
        arms = set(rows_with("trainers", name, "trainers")["arm"])
        assert arms
        for _, row in table.iterrows():
            same = component_name(row["objective"]) == config.objective.name
            same &= component_name(row["start"]) == config.attack.start.name
            cost = row["passes_train"] / row["images_visited"]
            same &= bool(np.isclose(cost, config.passes_per_image, rtol=0.02))
            assert (row["arm"] in arms) == same, (name, row["arm"])


def test_results_of_an_attack_are_of_it_alone() -> None:
    parts = {name: set(rows_with("attacks", name, "digits_autoattack")) for name in ("apgd", "apgd_t", "pgd", "square")}
    common = set.intersection(*parts.values())
    assert {name: columns - common for name, columns in parts.items()} == {
        "apgd": {"autoattack/apgd"},
        "apgd_t": {"autoattack/apgd_t"},
        "pgd": {"pgd40", "pgd40_margin"},
        "square": {"autoattack/square"},
    }
    assert rows_with("attacks", "square", "digits").empty
    assert rows_with("attacks", "fgsm", "digits").empty
