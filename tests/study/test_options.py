"""What notebooks are given beside a study is refused before any work, where it could not be shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from advprune_core.base.settings import ConfigError
from advprune_core.study.executed import parameters_of, study_of
from advprune_core.study.options import Options, check_options
from advprune_core.study.study import study_config
from tests.study.test_executed import NOTEBOOKS

OTHERS = {"A": {"trainer": "fast"}, "B": {"trainer": "trades"}}


@pytest.mark.parametrize(
    ("name", "given", "message"),
    [
        ("convergence_reliability", {"share": 0}, "share = 0"),
        ("convergence_reliability", {"share": 1.5}, "share = 1.5"),
        ("convergence_reliability", {"share": "most"}, "share = 'most'"),
        ("gradient_matching", {"margin": -0.01}, "margin = -0.01"),
        ("gradient_matching", {"margin": 1}, "margin = 1"),
        ("runtime", {"figure_dpi": 0}, "figure_dpi = 0"),
        ("pruners", {"figure_dpi": 72.5}, "figure_dpi = 72.5"),
        ("speedrun", {"figure_dpi": "fine"}, "figure_dpi = 'fine'"),
        ("trainers", {"reference": "PDG-AT"}, r"reference 'PDG-AT' \(did you mean 'PGD-AT'\?\).*TRADES"),
        ("trainers", {"reference": 3}, "reference = 3"),
        ("trainers", {"compare": ["TRADES: random", "MART: random"]}, r"compare.0 = 'TRADES: random'"),
        ("trainers", {"compare": [["TRADES: random"]]}, r"compare.0 = .*at least 2 items"),
        ("gradient_matching", {"reference": ["TRADES: random"]}, "reference = "),
        ("trainers", {"reference": "PGD-AT", "variants": OTHERS}, "reference 'PGD-AT'; allowed: A, B"),
        ("trainers", {"reference": "PGD-AT", "variants": {}}, "reference 'PGD-AT'; allowed: random"),
    ],
)
def test_a_command_refuses_what_could_not_be_shown(name: str, given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        study_of(NOTEBOOKS / f"{name}.ipynb", given)


@pytest.mark.parametrize(
    ("name", "given"),
    [
        ("convergence_reliability", {"share": 1, "figure_dpi": 1}),
        ("gradient_matching", {"margin": 0, "reference": "TRADES, BulletTrain: random"}),  # an arm, which is looked for
        (
            "trainers",
            {"reference": "TRADES", "compare": [["TRADES: random", "MART: random"], ("FGSM: random", "MART: random")]},
        ),
        ("trainers", {"reference": "B: random", "variants": OTHERS, "controls": ["same_cost"]}),
        ("trainers", {"variants": OTHERS}),  # nobody asked for the default's reference
    ],
)
def test_a_command_takes_what_can_be(name: str, given: dict[str, Any]) -> None:
    assert study_of(NOTEBOOKS / f"{name}.ipynb", given)


@pytest.mark.parametrize("path", sorted(NOTEBOOKS.glob("*.ipynb")), ids=lambda path: path.stem)
def test_defaults_are_those_of_the_notebooks(path: Path) -> None:
    own = {name: value for name, value in parameters_of(path).items() if name in Options.model_fields}
    own.pop("reference" if path.stem == "gradient_matching" else "", None)  # an arm
    assert Options(**own) == Options()


def test_what_is_no_option_is_left_alone() -> None:
    check_options(study_config({}), {"colour": object()}, given=["colour"])
