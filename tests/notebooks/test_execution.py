"""Every experiment is stored clean, has the study's parameters, and runs on a tiny grid; so do the other notebooks."""

from __future__ import annotations

import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import papermill
import pytest
import yaml
from papermill.exceptions import PapermillExecutionError

from advprune_core.cli.app import app
from advprune_core.study.executed import study_of
from advprune_core.study.grid import study_grid
from advprune_core.study.notebooks import find_notebook
from advprune_core.study.study import StudyConfig, read_profile, study_config
from tests.executed import cells, undrawn
from tests.tiny import STUDY

ROOT = Path(__file__).parents[2]
#: Notebooks that are no experiments, and what their executed copies say.
OTHERS = {"README": "trainers (reference)", "explore": "With 40 % of the most expensive run"}
NOTEBOOKS = [path for path in sorted((ROOT / "notebooks").glob("*.ipynb")) if path.stem not in OTHERS]
PROFILES = sorted((ROOT / "notebooks" / "profiles").glob("*.yaml"))
#: What a notebook asks beyond a study, and the fields in which its grid differs from the usual one.
OPTIONS = {
    "trainers": {"reference", "compare"},
    "gradient_matching": {"reference", "margin"},
    "convergence_reliability": {"share"},
    "speedrun": {"choice_seeds", "top", "textbook", "goals"},
}
GRIDS = {
    "trainers": {"study", "variants", "fractions", "controls", "settings"},
    "pruners": {"study", "pruners", "fractions", "seeds"},
    "gradient_matching": {"study", "variants", "fractions", "controls", "parts"},
    "convergence_reliability": {"study", "variants", "fractions", "controls", "settings"},
    "when_pruning_wins": {"study", "variants", "fractions", "controls", "parts", "settings"},
    "speedrun": {"study", "variants", "fractions", "controls", "settings", "epochs", "timed_repeats"},
}
FIGURES = {"accuracy_vs_fraction": "accuracy_vs_fraction.png", "runtime": "runtime.png"}
TINY = STUDY | {"epochs": 1}


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_stored_without_outputs_and_with_one_parameters_cell(notebook: Path) -> None:
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells(notebook))
    tagged = [cell for cell in cells(notebook) if "parameters" in cell["metadata"].get("tags", [])]
    assert tagged == cells(notebook)[:1]


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_parameters_are_the_fields_of_the_study(notebook: Path) -> None:
    body = ast.parse("".join(cells(notebook)[0]["source"])).body
    values = {
        statement.target.id if isinstance(statement, ast.AnnAssign) else statement.targets[0].id: statement.value  # type: ignore[attr-defined]
        for statement in body
    }
    options = {"figure_dpi"} | OPTIONS.get(notebook.stem, set())
    assert set(values) == set(StudyConfig.model_fields) | options
    parsed = {name: ast.literal_eval(value) for name, value in values.items() if name not in options}
    own = GRIDS.get(notebook.stem, set())
    rest = {name: value for name, value in parsed.items() if name not in own}
    assert study_config(rest) == StudyConfig(), "a notebook's defaults are the study's, its grid aside"
    assert study_grid(study_config(parsed))
    assert set(papermill.inspect_notebook(str(notebook))) == set(values)
    assert all(entry["help"] for entry in papermill.inspect_notebook(str(notebook)).values()), "has a comment"


@pytest.mark.parametrize("profile", PROFILES, ids=lambda path: path.stem)
def test_profiles_are_valid_studies(profile: Path) -> None:
    parameters, notebooks = read_profile(profile)
    assert notebooks or study_grid(study_config(parameters)), "those of a notebook may have options of its own"
    for name in notebooks:
        assert study_grid(study_of(find_notebook(name), parameters))
    own = profile.with_suffix(".ipynb").name
    assert notebooks or not (ROOT / "notebooks" / own).exists(), "a profile of a notebook's name is that notebook's"


@pytest.mark.slow
def test_the_command_executes_both_and_a_second_time_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from typer.testing import CliRunner

    profile = tmp_path / "tiny.yaml"
    profile.write_text(yaml.safe_dump(TINY))
    monkeypatch.chdir(ROOT)
    results = tmp_path / "results"
    for expected in ("6 runs trained and 6 evaluated", "0 runs trained and 0 evaluated"):
        done = CliRunner().invoke(app, ["study", "-f", str(profile), "--out", str(results)])
        assert done.exit_code == 0, done.output
        assert expected in done.output
        assert "same_cost(random)" in done.output
    for name, figure in FIGURES.items():
        executed = json.loads((results / "tiny" / f"{name}.ipynb").read_text())
        outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
        assert not [output for output in outputs if output["output_type"] == "error"]
        assert undrawn(executed) == []
        assert (results / "tiny" / figure).read_bytes().startswith(b"\x89PNG")
        assert executed["metadata"]["papermill"]["input_path"] == f"{name}.ipynb"


def noisy() -> dict[str, Any]:
    """Digits with wrong labels."""
    return {"digits": {"limit": 300, "test_limit": 100, "label_noise": 0.4}}


#: Notebooks with a grid of their own: a part of it that is quick, and the figures that they leave.
OWN_GRIDS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "trainers": (
        {
            "variants": {
                "PGD-AT": {"trainer": "pgd_at"},
                "standard": {"trainer": "standard"},
                "FGSM": {"trainer": "fgsm"},
            },
            "compare": [["FGSM: random", "PGD-AT: random"]],
            "controls": ["same_cost"],
        },
        ["trainers"],
    ),
    "pruners": (
        {"pruners": ["random", "score", {"grad_match": {"steps": 1, "warmup_epochs": 1}}], "epochs": 3},
        ["pruners", "selections"],
    ),
    "gradient_matching": (
        {
            "variants": {
                "TRADES": {"trainer": "trades", "attack.steps": 1},
                "TRADES, warm start": {"trainer": "trades", "attack.steps": 1, "warm_start": 0.5},
            },
            "parts": [
                {"variants": ["TRADES"], "fractions": [1.0, 0.4], "controls": ["same_cost"]},
                {"variants": ["TRADES, warm start"], "pruners": ["grad_match"], "fractions": [0.4], "controls": []},
            ],
            "epochs": 6,
        },
        ["gradient_matching"],
    ),
    "convergence_reliability": (
        {
            "variants": {"FGSM": {"trainer": "fgsm", "collapse_drop": 0.01}, "PGD-AT": {"trainer": "pgd_at"}},
            "settings": {"best_every": 1},
            "epochs": 4,
            "eps": "8/16",  # a run of FGSM collapses
            "lr": 0.05,
        },
        ["convergence", "survival", "alignment"],
    ),
    "when_pruning_wins": (
        {
            "variants": {
                "all the while": {"trainer": "n_fgsm", "dataset": noisy(), "optimisation.epochs": 3},
                "plain first": {
                    "trainer": "n_fgsm",
                    "dataset": noisy(),
                    "optimisation.plain_epochs": 1,
                    "optimisation.epochs": 3.4,
                    "equal_cost": True,
                },
            },
            "parts": [
                {"fractions": [1.0], "controls": []},
                {
                    "variants": ["plain first"],
                    "pruners": [{name: {"warmup_epochs": 1}} for name in ("random", "aum", "oracle")],
                    "fractions": [0.5],
                    "controls": [],
                },
            ],
        },
        ["when_pruning_wins"],
    ),
    "speedrun": (
        {
            "variants": {"PGD-1": {"trainer": "pgd_at"}, "N-FGSM": {"trainer": "n_fgsm"}},
            "settings": {"optimisation.cost_budget": 5000},
            "epochs": 100,
            "fractions": [1.0, 0.5],
            "controls": [],
            "choice_seeds": [7],
            "top": 2,
            "textbook": ["PGD-1: random"],
            "goals": [0.01, 0.999],
        },
        ["speedrun"],
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OWN_GRIDS)
def test_notebooks_with_their_own_grid(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    options, figures = OWN_GRIDS[name]
    profile = tmp_path / "tiny.yaml"
    profile.write_text(yaml.safe_dump({**TINY, "timed_repeats": 0, **options}))
    monkeypatch.chdir(ROOT)
    results = tmp_path / "results"
    command = ["study", f"notebooks/{name}.ipynb", "-f", str(profile), "--out", str(results)]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    executed = json.loads((results / "tiny" / f"{name}.ipynb").read_text())
    outputs = [output for cell in executed["cells"] for output in cell.get("outputs", [])]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert [output for output in outputs if "text/markdown" in output.get("data", {})]
    assert undrawn(executed) == []
    for figure in figures:
        assert (results / "tiny" / f"{figure}.png").read_bytes().startswith(b"\x89PNG")
    assert (results / "tiny" / f"{name}.csv").read_text().count("\n") >= 3


def test_every_notebook_is_executed() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(FIGURES) | set(OWN_GRIDS)


@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_experiment_can_be_watched_and_stopped(notebook: Path) -> None:
    source = "\n".join("".join(cell["source"]) for cell in cells(notebook))
    assert "result = run_watched(config" in source
    assert "run_study" not in source


@pytest.mark.slow(seconds=30)
@pytest.mark.parametrize("name", OTHERS)
def test_the_other_notebooks_run_from_top_to_bottom(name: str, tmp_path: Path) -> None:
    executed = tmp_path / f"{name}.ipynb"
    papermill.execute_notebook(str(ROOT / "notebooks" / executed.name), str(executed), progress_bar=False)
    outputs = [output for cell in cells(executed) for output in cell["outputs"]]
    assert OTHERS[name] in json.dumps(outputs)
    kinds = [kind for output in outputs for kind in output.get("data", {})]
    assert kinds.count("image/png") == (0 if name == "README" else 5), "figures are pictures"
    assert not [kind for kind in kinds if "widget" in kind], "nothing that only a kernel could fill"
    assert not [output for output in outputs if output.get("name") == "stderr"]
    assert executed.stat().st_size < 1_000_000


def test_the_start_page_leads_everywhere() -> None:
    text = "".join("".join(cell["source"]) for cell in cells(ROOT / "notebooks" / "README.ipynb", "markdown"))
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert all((ROOT / "notebooks" / link).is_file() for link in links)
    lessons = (ROOT / "notebooks" / "course").glob("*.ipynb")
    wanted = {path.name for path in NOTEBOOKS} | {"explore.ipynb"} | {f"course/{path.name}" for path in lessons}
    assert set(links) == wanted | {"course/README.md"}
    course = text[text.index("course/README.md") : text.index("course/1_one_step.ipynb")]
    assert "`make student`" in course, "a student is not led to the solutions first"
    assert "solved" in course


@pytest.mark.slow
def test_plain_papermill_runs_a_profile_and_refuses_unknown_names(tmp_path: Path) -> None:
    profile = tmp_path / "tiny.yaml"
    profile.write_text(yaml.safe_dump(TINY | {"results": str(tmp_path / "results")}))
    notebook = ROOT / "notebooks" / "accuracy_vs_fraction.ipynb"
    command = [sys.executable, "-m", "papermill", str(notebook), str(tmp_path / "out.ipynb"), "-f", str(profile)]
    subprocess.run(command, check=True, capture_output=True, cwd=ROOT)
    assert len(list((tmp_path / "results" / "runs").iterdir())) == 6
    with pytest.raises(PapermillExecutionError, match="did you mean 'epochs'"):
        papermill.execute_notebook(
            str(notebook), str(tmp_path / "bad.ipynb"), parameters={**TINY, "epoch": 3}, progress_bar=False
        )
    bad = json.loads((tmp_path / "bad.ipynb").read_text())
    assert not [
        cell
        for cell in bad["cells"]
        if "run_watched" in "".join(cell["source"]) and cell.get("execution_count", 0) and not cell["outputs"]
    ]
