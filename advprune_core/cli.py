"""The command `advprune`: thin over the package."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from advprune_core.options import assignments, shard_of, value_of, with_run_options
from advprune_core.settings import AdvpruneError, ConfigError

app = typer.Typer(
    name="advprune",
    help="Which training images to keep for faster adversarial training, and what that costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[str | None, typer.Option("--out", help="Results folder [default: $ADVPRUNE_RESULTS or ./results]")]
Data = Annotated[str | None, typer.Option("--data", help="Folder of downloads [default: $ADVPRUNE_DATA]")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the grid and the estimated cost, and stop.")]


def main() -> None:
    """Entry point: a mistake is one message and exit code 2, Ctrl-C is 130."""
    sys.path.insert(0, os.getcwd())  # "module:factory" may lie beside the shell, as for python -m
    try:
        app()
    except AdvpruneError as error:
        print(f"advprune: {error}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def _interruptible() -> Iterator[None]:
    """Say on Ctrl-C what becomes of the work."""
    try:
        yield
    except KeyboardInterrupt:
        print(
            "\nadvprune: interrupted; what is finished is kept, and the same command goes on from here",
            file=sys.stderr,
            flush=True,
        )
        os._exit(130)  # at once: threads of ended workers must not hold the exit up


@app.command("list")
def list_components(
    family: Annotated[str | None, typer.Argument(help="pruners, attacks, trainers, models, datasets, ...")] = None,
) -> None:
    """List what there is, one line each; of one family, with its settings."""
    from advprune_core.catalogue import catalogue

    print(catalogue(family))


@app.command()
@with_run_options
def run(
    *,
    set_: Annotated[list[str] | None, typer.Option("--set", help="Any setting: --set pruner.balanced=true")] = None,
    control: Annotated[str | None, typer.Option(help="Also run a control of this run (advprune list controls)")] = None,
    evaluation: Annotated[
        list[str] | None, typer.Option(help="Attack of the test, repeatable [default: PGD-40, CE then margin]")
    ] = None,
    out: Out = None,
    data: Data = None,
    dry_run: DryRun = False,
    **named: str | None,
) -> None:
    """Train and evaluate one run; what is there is not run again."""
    from advprune_core.attacks.base import ATTACKS
    from advprune_core.config import RunConfig
    from advprune_core.controls import CONTROLS, check_control
    from advprune_core.notebook import shown
    from advprune_core.records import RunStore
    from advprune_core.runner import run_entries
    from advprune_core.settings import check_names
    from advprune_core.study import Entry, Execution, pruner_label
    from advprune_core.tasks import PGD_40
    from advprune_core.trainers.sentinel import depth

    config = RunConfig.flat(**{name: value_of(text) for name, text in named.items() if text is not None})
    if set_:
        config = config.with_settings(assignments(set_))
    attacks = tuple(ATTACKS.parse(value_of(text)) for text in evaluation) if evaluation else PGD_40
    execution = Execution(engine="serial", timed_repeats=0, data=data, results=out)
    label = pruner_label(config.pruner)
    entries = [Entry(label, config.fraction, config.seed, config)]
    if control is not None:
        check_names([control], CONTROLS, what="control")
        check_control(control, config)  # type: ignore[arg-type]
        entries.append(Entry(f"{control}({label})", config.fraction, config.seed, config, control))  # type: ignore[arg-type]
    if dry_run:
        _print_plan(entries, execution)
        return
    with _interruptible():
        driver = run_entries(entries, execution=execution, attacks=attacks, name=entries[0].describe())
    store = RunStore(execution.root)
    for number, key in driver.keys.items():
        record = store.run(key)
        if record is None or record.status == "failed":
            continue
        when = ""
        if record.collapse_epoch is not None:
            fall = f"held-out robust accuracy fell by {100 * depth(record.epochs):.0f} points"
            when = f" (seen in epoch {record.collapse_epoch}; {fall})"
        print(f"{entries[number].describe()}: status {record.status}{when}, {record.cost:,} forward-equivalents")
        found = store.evaluation(key, driver.evaluation(entries[number].config).key(driver.dataset.test_hash))
        for name, value in ({"clean": found.clean, **found.attacks} if found else {}).items():
            print(f"  {name:24} {value.text()}")
        print(f"  in {shown(store.folder(key))}")
    _report_failures(driver.failed)


@app.command()
def study(
    files: Annotated[
        list[str] | None, typer.Argument(help="Notebooks (.ipynb) and at most one profile (.yaml)")
    ] = None,
    profile: Annotated[str | None, typer.Option("-f", "--profile", help="Parameter file (YAML)")] = None,
    parameter: Annotated[
        list[str] | None, typer.Option("-p", "--parameter", help="NAME=VALUE, after the profile; repeatable")
    ] = None,
    out: Out = None,
    shard: Annotated[str | None, typer.Option(help="Only part i/n of the runs, without notebooks")] = None,
    dry_run: DryRun = False,
) -> None:
    """Carry out a study and execute its notebooks (default: accuracy_vs_fraction and runtime)."""
    from advprune_core.experiments import execute, find_notebooks, study_of
    from advprune_core.notebook import shown
    from advprune_core.runner import run_study
    from advprune_core.statistics import printable
    from advprune_core.study import read_profile, study_grid

    given = [Path(name) for name in files or []]
    profiles = [path for path in given if path.suffix in (".yaml", ".yml")] + ([Path(profile)] if profile else [])
    if len(profiles) > 1:
        raise ConfigError(f"one profile at a time, not {len(profiles)}: {', '.join(map(str, profiles))}")
    parameters = read_profile(profiles[0]) if profiles else {}
    parameters |= assignments(parameter or [])
    if out is not None:
        parameters["results"] = out
    notebooks = find_notebooks([path for path in given if path not in profiles], profiles)
    studies = [(path, study_of(path, parameters)) for path in notebooks]
    part = shard_of(shard)
    failed: dict[str, str] = {}
    for number, (_, config) in enumerate(studies):
        if config in [earlier for _, earlier in studies[:number]]:
            continue  # notebooks of one grid are executed together
        if dry_run:
            _print_plan(study_grid(config, shard=part), config.execution)
            continue
        with _interruptible():
            result = run_study(config, shard=part)
            failed |= result.failed
            if part is None:
                print(printable(result.table).to_string(index=False))
                for path in execute([path for path, other in studies if other == config], parameters, config):
                    print(f"executed {shown(path)}")
        if part is None:
            figures = ", ".join(shown(path) for path in sorted(config.folder.glob("*.png")))
            print(f"tables and figures in {shown(config.folder)}: {figures}")
        print(f"{result.trained} runs trained and {result.evaluated} evaluated now; the rest was there")
    _report_failures(failed)


@app.command()
def collect(
    results: Annotated[
        list[str] | None, typer.Argument(help="Results folders; records of all are put together")
    ] = None,
    study_name: Annotated[str | None, typer.Option("--study", help="Only the runs of this study")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Write a .csv or .tex file instead of printing")] = None,
) -> None:
    """Put the records of all runs into one table."""
    from advprune_core.environment import results_root
    from advprune_core.files import write_text
    from advprune_core.table import collect as collect_records

    folders = results or [str(results_root())]
    for folder in folders:
        if not (Path(folder) / "runs").is_dir():
            raise ConfigError(f"{folder} is not a results folder: it has no runs/")
    table = collect_records(*folders, study=study_name)
    if out is None:
        columns = ["key", "arm", "dataset", "pruner", "fraction", "seed", "status", "clean", "robust", "cost"]
        print(table[[name for name in columns if name in table]].to_string(index=False) if len(table) else "no runs")
    elif out.endswith((".csv", ".tex")):
        write_text(Path(out), table.to_csv(index=False) if out.endswith(".csv") else table.to_latex(index=False))
        print(f"{len(table)} rows in {out}")
    else:
        raise ConfigError(f"--out must end in .csv or .tex, not {out!r}")


@app.command()
def evaluate(
    run_key: Annotated[str | None, typer.Argument(help="Key of a run, or its beginning")] = None,
    weights: Annotated[str | None, typer.Option(help="State dict (.pt) of your own, instead of a run")] = None,
    model: Annotated[str, typer.Option(help="Network of --weights: a name, YAML, or module:factory")] = "small_cnn",
    dataset: Annotated[str, typer.Option(help="Data set of --weights")] = "digits",
    eps: Annotated[
        str | None, typer.Option(help="Radius in units of [0, 1] [default: the run's, or the data set's]")
    ] = None,
    norm: Annotated[str | None, typer.Option(help="linf or l2 [default: the run's, or linf]")] = None,
    attack: Annotated[
        list[str] | None, typer.Option(help="Attack, repeatable, cheapest first [default: PGD-40, CE then margin]")
    ] = None,
    checkpoint: Annotated[str, typer.Option(help="last or best")] = "last",
    images: Annotated[int | None, typer.Option(help="Only so many test images, of all classes [default: all]")] = None,
    out: Out = None,
    data: Data = None,
) -> None:
    """Evaluate a run that is there, or weights of your own; killed, it goes on where it was."""
    from advprune_core.experiments import evaluate_checkpoint
    from advprune_core.notebook import shown

    if (run_key is None) == (weights is None):
        raise ConfigError("name either a run or --weights")
    with _interruptible():
        record, path = evaluate_checkpoint(
            run_key=run_key,
            weights=weights,
            own={"model": value_of(model), "dataset": value_of(dataset)},
            threat={name: value for name, value in (("eps", eps), ("norm", norm)) if value is not None},
            attacks=[value_of(text) for text in attack or []],
            checkpoint=checkpoint,
            images=images,
            results=out,
            data=data,
        )
    broken = record.outcome().broken()
    for name, value in {"clean": record.clean, **record.attacks, "robust (all)": record.robust}.items():
        fallen = f", broke {broken[name]} of {record.n} images" if name in broken else ""
        print(f"{name:24} {value.text()}{fallen}")
    print(f"{record.n} test images, in {shown(path)}")


@app.command()
def select(
    arrays: Annotated[str, typer.Argument(help=".npz with y, and x, logits, features or trajectory as needed")],
    pruner: Annotated[
        str, typer.Option(help="What chooses: a name or {name: {setting: value}} (advprune list pruners)")
    ],
    fraction: Annotated[float, typer.Option(help="Share to keep")],
    out: Annotated[str, typer.Option("--out", help=".npz of indices and weights")] = "selection.npz",
    picture: Annotated[str | None, typer.Option(help=".png of images that are kept and dropped")] = None,
    model: Annotated[str | None, typer.Option(help="Network: a name, YAML, or module:factory")] = None,
    weights: Annotated[str | None, typer.Option(help="Its state dict (.pt)")] = None,
    objective: Annotated[str, typer.Option(help="Loss that you will train with")] = "pgd_at",
    norm: Annotated[str, typer.Option(help="Norm of the scoring attack: linf or l2")] = "linf",
    eps: Annotated[str, typer.Option(help="Its radius in units of [0, 1]")] = "8/255",
    steps: Annotated[int, typer.Option(help="Its steps")] = 7,
    seed: Annotated[int, typer.Option(help="Of random choices")] = 0,
) -> None:
    """Prune your own data without training here: arrays in, indices and weights out."""
    from advprune_core.selecting import save_selection, select_file

    if not out.endswith(".npz") or (picture is not None and not picture.endswith(".png")):
        raise ConfigError("--out must end in .npz, --picture in .png")
    selection, split = select_file(
        arrays,
        pruner=value_of(pruner),
        fraction=fraction,
        model=None if model is None else value_of(model),
        weights=weights,
        objective=value_of(objective),
        norm=norm,
        eps=eps,
        steps=steps,
        seed=seed,
    )
    save_selection(selection, out)
    filled = f", {selection.n_filled} of them not by its own rule" if selection.n_filled else ""
    print(f"{pruner} keeps {len(selection)} of {len(split)} images{filled}: indices and weights in {out}")
    if picture is not None:
        from advprune_core.files import write_atomically
        from advprune_core.gallery import gallery

        figure = gallery(split, selection)
        write_atomically(Path(picture), lambda file: figure.savefig(file, format="png", dpi=150))
        print(f"some that are kept and dropped: {picture}")


@app.command()
def export(
    study_name: Annotated[str, typer.Argument(help="Name of a study")],
    folder: Annotated[str, typer.Argument(help="Where its records, tables, figures and notebooks are copied")],
    out: Out = None,
) -> None:
    """Copy a study without weights: records, tables, figures, notebooks (for publication)."""
    from advprune_core.environment import results_root
    from advprune_core.experiments import export_study

    count = export_study(study_name, Path(folder), results=results_root(out))
    print(f"{count} runs of {study_name} in {folder}")


@app.command()
def gc(
    out: Out = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without it, only say what would be deleted")] = False,
) -> None:
    """Delete runs that no study's manifest names, and left-over checkpoints."""
    from advprune_core.environment import results_root
    from advprune_core.experiments import garbage

    found = garbage(results_root(out))
    for path, size in found:
        print(f"{'deleted' if yes else 'would delete'} {path} ({size / 1e6:.1f} MB)")
        if yes:
            shutil.rmtree(path)
    if not found:
        print("nothing to delete")


def _print_plan(entries: list[Any], execution: Any) -> None:
    from advprune_core.experiments import plan

    print(plan(entries, execution))


def _report_failures(failed: dict[str, str]) -> None:
    for name, message in failed.items():
        print(f"FAILED {name}: {message}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)
