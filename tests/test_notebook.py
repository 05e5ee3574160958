"""What notebooks share: their parameters are checked, their files are whole."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import papermill
import pytest
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

from tests.made_up import study_table
from tests.tiny import tiny_study

mpl.use("agg")

import matplotlib.pyplot as plt

from advprune_core.base.settings import ConfigError
from advprune_core.notebook import config_of_notebook, injected_names, run_watched, save_figure, save_table, shown
from advprune_core.study.study import StudyConfig, study_config

DEFAULTS: dict[str, Any] = {"study": "mine", "epochs": 30, "seeds": [0, 1], "figure_dpi": 150}


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


def cells_of(parameters: dict[str, Any]) -> list[str]:
    """Sources of a notebook's code cells after papermill itself has put parameters in."""
    source = "\n".join(f"{name} = {value!r}" for name, value in DEFAULTS.items())
    cell = nbformat.v4.new_code_cell(source, metadata={"tags": ["parameters"]})
    rest = nbformat.v4.new_code_cell("run = 1\nepocs = 2")
    notebook = nbformat.v4.new_notebook(cells=[cell, rest])
    notebook.metadata["kernelspec"] = {"name": "python3", "language": "python", "display_name": "Python 3"}
    with tempfile.TemporaryDirectory() as folder:
        before, after = Path(folder) / "before.ipynb", Path(folder) / "after.ipynb"
        nbformat.write(notebook, before)
        papermill.execute_notebook(before, after, parameters, prepare_only=True, progress_bar=False)
        return [cell.source for cell in nbformat.read(after, as_version=4).cells]


def namespace(parameters: dict[str, Any], *, times: int = 1) -> dict[str, Any]:
    """The notebook's globals after its cells were run, `times` over, with what else stands there."""
    cells = cells_of(parameters)
    found: dict[str, Any] = {"__name__": "__main__"}
    for cell in cells:
        exec(cell, found)
    return {**found, "In": ["", *cells * times], "Out": {}, "config": object(), "result": 1, "table": 2}


@pytest.mark.parametrize(
    ("parameters", "names"),
    [
        ({}, []),
        ({"epochs": 3}, ["epochs"]),
        (
            {"epochs": 3, "seeds": [4], "eps": "8/255", "settings": {"a.b": None}},
            ["epochs", "seeds", "eps", "settings"],
        ),
        ({"study": "two\n# Parameters\nlines = 1"}, ["study"]),
    ],
)
def test_injected_names_are_those_of_papermills_cell(parameters: dict[str, Any], names: list[str]) -> None:
    assert injected_names(cells_of(parameters)) == names


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["epoch = 3"], "unknown parameter 'epoch'.*did you mean 'epochs'"),
        (["epoch: int = 3"], "unknown parameter 'epoch'"),
        (["sedes = [1]", "epochs = 2"], "unknown parameter 'sedes'.*did you mean 'seeds'"),
    ],
)
def test_names_typed_into_the_parameter_cell_are_checked_as_papermills_are(lines: list[str], message: str) -> None:
    cell = "\n".join(["study = 'mine'", "seeds: list = [0]", *lines])
    with pytest.raises(ConfigError, match=message):
        config_of_notebook({"study": "mine", "seeds": [0], "In": ["", cell]})
    mended = cell.replace("epoch ", "epochs ").replace("epoch:", "epochs:").replace("sedes = [1]\n", "")
    config = config_of_notebook(
        {"study": "mine", "seeds": [0], "epochs": 3, "In": ["", cell, "1 +", "%matplotlib", mended]}
    )
    assert config.epochs == 3, "what was mended and run again is mended"


def test_an_error_is_one_sentence_in_a_notebook() -> None:
    shell = InteractiveShell.instance()
    with capture_output() as shown:
        result = shell.run_cell("from advprune_core import RunConfig; RunConfig.flat(epoch=3)")
    assert isinstance(result.error_in_exec, ConfigError)
    assert shown.stdout.strip().startswith("ConfigError: unknown parameter 'epoch' (did you mean 'epochs'?)")
    assert len(shown.stdout.strip().splitlines()) == 1


@pytest.mark.parametrize("when", ["before", "within"])
def test_an_interruption_is_one_sentence_that_says_what_is_kept(
    when: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As by Ctrl-C, the kernel's interruption, or the button, which is that."""
    from advprune_core.study import driver, runner

    config = tiny_study(tmp_path, seeds=[0], epochs=1)
    place, name = (runner, "settle_speed") if when == "before" else (driver, "carry_out")
    real, calls = getattr(place, name), []

    def interrupted(*arguments: Any, **options: Any) -> Any:
        calls.append(arguments)
        if when == "before" or sum(isinstance(task, driver.TrainTask) for task, *_ in calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    shell = InteractiveShell.instance()
    shell.push({"run_watched": run_watched, "config": config})
    with monkeypatch.context() as patch, capture_output() as shown:
        patch.setattr(place, name, interrupted)
        result = shell.run_cell("run_watched(config)")
    assert isinstance(result.error_in_exec, KeyboardInterrupt)
    (said,) = [line for line in shown.stdout.splitlines() if line.startswith("Interrupted: ")]
    kept = "nothing was trained yet" if when == "before" else "1 of 3 runs are trained and kept"
    assert kept in said
    assert "run the cell again" in said
    assert "Traceback" not in shown.stdout + shown.stderr
    assert run_watched(config).trained == (3 if when == "before" else 2), "what was finished is not trained again"


def test_injected_names_of_all_injected_cells() -> None:
    assert injected_names([*cells_of({"epochs": 1}), *cells_of({"lr": 1})]) == ["epochs", "lr"]
    assert injected_names([]) == []


@pytest.mark.parametrize("times", [1, 3])
def test_parameters_are_read_however_often_cells_were_run(times: int) -> None:
    config = config_of_notebook(namespace({"epochs": 2.5}, times=times), options=["figure_dpi"])
    assert config == study_config({"study": "mine", "epochs": 2.5, "seeds": [0, 1]})


def test_papermill_passes_lists_and_maps_as_their_text() -> None:
    """``papermill -p seeds '[0, 2]'``: it knows numbers and text alone."""
    given = {"epochs": 2.5, "seeds": "[0, 2]", "settings": "{optimisation.lr: 0.5}", "pruners": "[random, {aum: {}}]"}
    assert config_of_notebook(namespace(given), options=["figure_dpi"]) == study_config(
        {"study": "mine", "epochs": 2.5, "seeds": [0, 2], "settings": {"optimisation.lr": 0.5}}
        | {"pruners": ["random", {"aum": {}}]}
    )
    with pytest.raises(ConfigError, match=r"the parameter '\[0, 2'"):
        config_of_notebook(namespace({"seeds": "[0, 2"}), options=["figure_dpi"])


def test_figure_options_are_allowed_where_they_are_named() -> None:
    given = namespace({"figure_dpi": 30})
    assert isinstance(config_of_notebook(given, options=["figure_dpi"]), StudyConfig)
    with pytest.raises(ConfigError, match="unknown parameter 'figure_dpi'"):
        config_of_notebook(given)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epocs": 3}, "unknown parameter 'epocs'.*did you mean 'epochs'.*allowed: .*seeds"),
        ({"figure_dpy": 3}, "unknown parameter 'figure_dpy'.*did you mean 'figure_dpi'"),
        ({"table": 3}, "unknown parameter 'table'"),
        ({"epochs": -1}, "epochs = -1"),
        ({"fractions": [0.5, 0]}, r"fractions\.1 = 0"),
        ({"pruners": ["randm"]}, "unknown pruner 'randm'.*did you mean 'random'"),
        ({"seeds": [1, 1]}, "seeds has repeated values"),
        ({"study": "../up"}, "study = '../up'"),
    ],
)
def test_wrong_parameters_are_refused(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of_notebook(namespace(parameters), options=["figure_dpi"])


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"figure_dpi": 0}, "figure_dpi = 0"),
        ({"share": 1.01}, "share = 1.01"),
        ({"margin": 1.0}, "margin = 1.0"),
        ({"reference": "PGD"}, "unknown reference 'PGD'.*allowed: random"),
    ],
)
def test_options_are_checked_before_any_work(parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config_of_notebook(namespace(parameters), options=["figure_dpi", "share", "margin", "reference"])


@pytest.mark.parametrize(
    ("injected", "refused"),
    [({}, True), ({"epochs": 3}, False), ({"reference": "PGD-AT"}, True), ({"reference": "FGSM"}, False)],
)
def test_a_reference_is_looked_for_where_somebody_gave_it(injected: dict[str, Any], refused: bool) -> None:
    """Typed into the parameter cell, or by papermill; beside that the cell has the notebook's own default."""
    variants = {"FGSM": {"trainer": "fgsm"}, "TRADES": {"trainer": "trades"}}
    values = {"study": "mine", "seeds": [0], "variants": variants, "reference": "PGD-AT", **injected}
    typed, given = ("\n".join(f"{k} = {v!r}" for k, v in lines.items()) for lines in (values, injected))
    cells = ["", typed, *(["# Parameters\n" + given] if injected else [])]
    names = {"options": ["reference"]}
    if refused:
        with pytest.raises(ConfigError, match="unknown reference 'PGD-AT'; allowed: FGSM, TRADES"):
            config_of_notebook({**values, "In": cells}, **names)
    else:
        assert set(config_of_notebook({**values, "In": cells}, **names).variants) == set(variants)


@pytest.mark.parametrize("arm", ["random", ["random"], [["random", "same_cost(random)"]], []])
def test_arms_that_the_study_has_are_taken(arm: Any) -> None:
    assert config_of_notebook(namespace({"pair": arm}), options=["figure_dpi"], arms=["pair"]).seeds == (0, 1)


@pytest.mark.parametrize("arm", ["randm", ["random", "randm"], [["same_cost(random)", "randm"]]])
def test_an_arm_that_the_study_lacks_is_refused(arm: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"^pair: no arm .* 'randm' \(did you mean 'random'\?\); allowed: random, same"
    ):
        config_of_notebook(namespace({"pair": arm}), options=["figure_dpi"], arms=["pair"])


@pytest.mark.parametrize("name", ["", ".", "..", "runs", "a/b", "a b"])
def test_a_study_name_is_the_name_of_a_folder(name: str) -> None:
    with pytest.raises(ConfigError, match="study = "):
        study_config({"study": name})


def test_save_figure_writes_a_png(tmp_path: Path) -> None:
    figure, axis = plt.subplots(figsize=(2, 1))
    axis.plot([0, 1])
    config = study_config({"study": "mine", "results": str(tmp_path)})
    sizes = []
    for dpi in (50, 100):
        path = save_figure(figure, config, "line", dpi=dpi)
        assert path == tmp_path / "mine" / "line.png"
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        sizes.append((int.from_bytes(data[16:20]), int.from_bytes(data[20:24])))
    assert sizes == [(100, 50), (200, 100)]
    assert sorted(file.name for file in path.parent.iterdir()) == ["line.png", "line.svg"]


def test_save_table_writes_csv_and_latex(tmp_path: Path) -> None:
    points = {
        ("random", 1.0): [(0.95, 0.75), (0.97, 0.71)],
        ("random", 0.4): [(0.9, 0.6), (0.8, 0.5)],
        ("same_cost(random)", 0.4): [(0.85, 0.65), (0.9, 0.55)],
    }
    table = study_table(points)
    paths = save_table(table, study_config({"study": "mine", "results": str(tmp_path)}))
    assert paths == (tmp_path / "mine" / "table.csv", tmp_path / "mine" / "table.tex")
    rows = list(csv.DictReader(io.StringIO(paths[0].read_text())))
    assert [float(row["robust"]) for row in rows] == table["robust"].tolist()
    assert set(rows[0]) == set(table.columns)
    latex = paths[1].read_text()
    assert latex.count(r"\begin{tabular}") == latex.count(r"\end{tabular}") == 1
    body = [line for line in latex.splitlines() if line.endswith(r"\\")][1:]
    assert len(body) == len(points)
    (control,) = [line for line in body if "same" in line]
    assert r"same\_cost(random)" in control
    assert r"40 \%" in control
    assert "87.5 [" in control
    assert "60.0 [" in control
    assert "0.400" in control


@pytest.mark.parametrize(
    ("path", "expected"),
    [("here/a/b", "a/b"), ("sibling/c", "../sibling/c"), ("here", ".")],
)
def test_paths_are_shown_short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, path: str, expected: str) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert shown(tmp_path / path) == expected
    assert Path(shown(tmp_path.parent)).is_absolute()
