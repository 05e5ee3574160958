"""The command `advprune`: thin over the package."""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from advprune_core.base.machine import MachineError, machine_errors
from advprune_core.base.settings import AdvpruneError, ConfigError
from advprune_core.options import assignments, shard_of, value_of, with_run_options


class Interrupted(KeyboardInterrupt):
    """A signal other than Ctrl-C has asked for an end; its argument is the signal's number."""


@contextmanager
def _interruptible(fate: str = "what is finished is kept, and the same command goes on from here") -> Iterator[None]:
    """Say on Ctrl-C, SIGTERM and SIGHUP what becomes of the work, and exit with 128 + the signal's number."""
    try:
        yield
    except KeyboardInterrupt as error:
        number = error.args[0] if isinstance(error, Interrupted) else signal.SIGINT
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # what follows is short, and not to be cut again
        print(f"\nadvprune: interrupted; {fate}", file=sys.stderr, flush=True)
        os._exit(128 + number)  # at once: threads of ended workers must not hold the exit up


class _Commands(TyperGroup):
    """The commands: each one can be interrupted."""

    def invoke(self, ctx: Any) -> Any:
        with _interruptible("what was written before is kept"):
            return super().invoke(ctx)


app = typer.Typer(
    name="advprune",
    cls=_Commands,
    help="Which training images to keep for faster adversarial training, and what that costs.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

Out = Annotated[str | None, typer.Option("--out", help="Results folder [default: $ADVPRUNE_RESULTS or ./results]")]
Data = Annotated[str | None, typer.Option("--data", help="Folder of downloads [default: $ADVPRUNE_DATA]")]
Retrain = Annotated[
    bool, typer.Option("--retrain", help="Train runs again whose weights are not here (as those of an imported study)")
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the grid and the estimated cost, and stop.")]


def main() -> None:
    """Entry point: a mistake is one message and exit code 2, what the machine refuses 1, a signal 128 + its number."""
    sys.path.insert(0, os.getcwd())  # "module:factory" may lie beside the shell, as for python -m
    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)  # none on some systems, ignored under nohup
        if number is not None and signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _interrupt)
    try:
        with machine_errors():
            app()
    except AdvpruneError as error:
        print(f"advprune: {error}", file=sys.stderr)
        sys.exit(1 if isinstance(error, MachineError) else 2)
    except OSError as error:
        print(f"advprune: {error}", file=sys.stderr)
        sys.exit(1)


def _interrupt(number: int, frame: Any) -> None:
    raise Interrupted(number)


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
    retrain: Retrain = False,
    dry_run: DryRun = False,
    **named: str | None,
) -> None:
    """Train and evaluate one run; what is there is not run again."""
    from advprune_core.attacks.base import ATTACKS
    from advprune_core.base.settings import check_names
    from advprune_core.notebook import shown
    from advprune_core.study.grid import Entry
    from advprune_core.study.runner import run_entries
    from advprune_core.study.store import RunStore
    from advprune_core.study.study import Execution, pruner_label
    from advprune_core.study.tasks import PGD_40
    from advprune_core.trainers.config import RunConfig
    from advprune_core.trainers.controls import CONTROLS, check_control
    from advprune_core.trainers.sentinel import depth

    config = RunConfig.flat(**{name: value_of(text) for name, text in named.items() if text is not None})
    if set_:
        config = config.with_settings(assignments(set_))
    attacks = tuple(ATTACKS.parse(value_of(text)) for text in evaluation) if evaluation else PGD_40
    execution = Execution(engine="serial", timed_repeats=0, data=data, results=out, retrain=retrain)
    label = pruner_label(config.pruner)
    entries = [Entry(label, config.fraction, config.seed, config, attacks=attacks)]
    if control is not None:
        check_names([control], CONTROLS, what="control")
        check_control(control, config)  # type: ignore[arg-type]
        entries.append(replace(entries[0], arm=f"{control}({label})", control=control))  # type: ignore[arg-type]
    if dry_run:
        _print_plan(entries, execution)
        return
    with _interruptible():
        driver = run_entries(entries, execution=execution, name=entries[0].describe())
    store = RunStore(execution.root)
    for number, key in driver.keys.items():
        store.ask_for(key)
        record = store.run(key)
        if record is None or record.status == "failed":
            continue
        when = ""
        if record.collapse_epoch is not None:
            fall = f"held-out robust accuracy fell by {100 * depth(record.epochs):.0f} points"
            when = f" (seen in epoch {record.collapse_epoch}; {fall})"
        print(f"{entries[number].describe()}: status {record.status}{when}, {record.cost:,} forward-equivalents")
        found = store.evaluation(key, driver.evaluation_key(number))
        for name, value in ({"clean": found.clean, **found.attacks} if found else {}).items():
            print(f"  {name:24} {value.text()}")
        print(f"  in {shown(store.folder(key))}")
    _report_left_out(driver.without_weights)
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
    retrain: Retrain = False,
    dry_run: DryRun = False,
) -> None:
    """Carry out a study and execute its notebooks (default: accuracy_vs_fraction and runtime)."""
    from advprune_core.analysis.summaries import printable
    from advprune_core.notebook import shown
    from advprune_core.study.experiments import execute, find_notebooks, study_of
    from advprune_core.study.grid import study_grid
    from advprune_core.study.runner import run_study
    from advprune_core.study.study import read_profile

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
            result = run_study(config, shard=part, retrain=retrain)
            failed |= result.failed
            if part is None:
                print(printable(result.table).to_string(index=False))
                for path in execute([path for path, other in studies if other == config], parameters, config):
                    print(f"executed {shown(path)}")
        if part is None:
            figures = ", ".join(shown(path) for path in sorted(config.folder.glob("*.png")))
            print(f"tables and figures in {shown(config.folder)}: {figures}")
        print(f"{result.trained} runs trained and {result.evaluated} evaluated now; the rest was there")
        _report_left_out(result.without_weights)
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
    from advprune_core.base.environment import results_root
    from advprune_core.base.files import write_text
    from advprune_core.study.table import collect as collect_records

    folders = results or [str(results_root())]
    for folder in folders:
        if not (Path(folder) / "runs").is_dir():
            raise ConfigError(f"{folder} is not a results folder: it has no runs/")
    table = collect_records(*folders, study=study_name)
    if out is None:
        columns = ["key", "arm", "dataset", "pruner", "fraction", "seed", "status", "clean", "robust", "cost"]
        print(table[[name for name in columns if name in table]].to_string(index=False) if len(table) else "no runs")
    elif out.endswith((".csv", ".tex")):
        write_text(
            Path(out), table.to_csv(index=False) if out.endswith(".csv") else table.to_latex(index=False, escape=True)
        )
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
    images: Annotated[str | None, typer.Option(help="Only so many test images, of all classes [default: all]")] = None,
    speed: Annotated[str | None, typer.Option(help="Searches: exact or compiled [default: as the run]")] = None,
    retrain: Retrain = False,
    out: Out = None,
    data: Data = None,
) -> None:
    """Evaluate a run that is there, or weights of your own; killed, it goes on where it was."""
    from advprune_core.notebook import shown
    from advprune_core.study.experiments import evaluate_checkpoint

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
            images=None if images is None else value_of(images),
            results=out,
            data=data,
            retrain=retrain,
            speed=speed,  # type: ignore[arg-type]
        )
    broken = record.outcome().broken()
    for name, value in {"clean": record.clean, **record.attacks, "robust (all)": record.robust}.items():
        fallen = f", broke {broken[name]} of {record.n} images" if name in broken else ""
        print(f"{name:24} {value.text()}{fallen}")
    print(f"{record.n} test images, in {shown(path)}")


@app.command()
def select(
    arrays: Annotated[
        str,
        typer.Argument(help=".npz with y, and as needed x, (adversarial_)logits, (adversarial_)features, trajectory"),
    ],
    pruner: Annotated[
        str, typer.Option(help="What chooses: a name or {name: {setting: value}} (advprune list pruners)")
    ],
    fraction: Annotated[str, typer.Option(help="Share to keep")],
    out: Annotated[str, typer.Option("--out", help=".npz of indices and weights")] = "selection.npz",
    picture: Annotated[str | None, typer.Option(help=".png of images that are kept and dropped")] = None,
    model: Annotated[str | None, typer.Option(help="Network: a name, YAML, or module:factory")] = None,
    weights: Annotated[str | None, typer.Option(help="Its state dict (.pt)")] = None,
    objective: Annotated[str, typer.Option(help="Loss that you will train with")] = "pgd_at",
    norm: Annotated[str, typer.Option(help="Norm of the scoring attack: linf or l2")] = "linf",
    eps: Annotated[str, typer.Option(help="Its radius in units of [0, 1]")] = "8/255",
    steps: Annotated[str, typer.Option(help="Its steps")] = "7",
    seed: Annotated[str, typer.Option(help="Of random choices")] = "0",
    min_per_class: Annotated[str, typer.Option(help="Images kept of every class at least")] = "0",
    layout: Annotated[str | None, typer.Option(help="Axes of x: NHWC or NCHW [default: seen from its shape]")] = None,
    device: Annotated[str, typer.Option(help="Of the network: cpu, cuda, or auto: a GPU if there is one")] = "auto",
) -> None:
    """Prune your own data without training here: arrays in, indices and weights out."""
    from advprune_core.pruners.selection_files import save_selection, select_file

    if not out.endswith(".npz") or (picture is not None and not picture.endswith(".png")):
        raise ConfigError("--out must end in .npz, --picture in .png")
    with _interruptible("no selection was written"):
        selection, split = select_file(
            arrays,
            pruner=value_of(pruner),
            fraction=value_of(fraction),
            model=None if model is None else value_of(model),
            weights=weights,
            objective=value_of(objective),
            norm=norm,
            eps=eps,
            steps=value_of(steps),
            seed=value_of(seed),
            min_per_class=value_of(min_per_class),
            layout=layout,
            device=device,  # type: ignore[arg-type]
        )
    save_selection(selection, out)
    filled = f", {selection.n_filled} of them not by its own rule" if selection.n_filled else ""
    print(f"{pruner} keeps {len(selection)} of {len(split)} images{filled}: indices and weights in {out}")
    if picture is not None:
        from advprune_core.analysis.gallery import gallery
        from advprune_core.base.files import write_atomically

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
    from advprune_core.base.environment import results_root
    from advprune_core.study.archive import export_study

    count = export_study(study_name, Path(folder), results=results_root(out))
    print(f"{count} runs of {study_name} in {folder}")


@app.command("import")
def import_(
    folder: Annotated[str, typer.Argument(help="An exported study, or a results folder")],
    out: Out = None,
) -> None:
    """Bring a study into the results, every record verified: its runs are finished here, with or without weights."""
    from advprune_core.base.environment import results_root
    from advprune_core.study.archive import import_study

    root = results_root(out)
    found = import_study(Path(folder), results=root)
    there = f", {len(found.there)} were there already and stay as they are" if found.there else ""
    print(f"{len(found.runs)} runs imported into {root}{there}")
    if found.without_digests:
        print(
            f"{len(found.without_digests)} of them have records without digests, of an older version: taken as they "
            "are, and marked"
        )
    if found.other_code:
        print(f"{len(found.other_code)} of them were made by other code than today's, which would make them anew")
    for path, reason in found.refused.items():
        print(f"REFUSED {path}: {reason}", file=sys.stderr)
    if found.refused:
        raise typer.Exit(1)


@app.command()
def check(
    results: Annotated[str | None, typer.Argument(help="Results folder or exported study [default: yours]")] = None,
) -> None:
    """Verify results: digests, keys, files and manifests; names what was altered or is missing (exit code 1)."""
    from advprune_core.base.environment import results_root
    from advprune_core.study.store import RunStore
    from advprune_core.study.upkeep import check_results

    root = results_root(results)
    found = check_results(root)
    for finding in found:
        print(finding.text())
    runs = len(RunStore(root, read_only=True).run_keys())
    print(f"{root}: {len(found)} findings" if found else f"{root}: {runs} runs, all as they were written")
    if found:
        raise typer.Exit(1)


@app.command()
def gc(
    out: Out = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Move it to trash/; without it, only say what would be moved")
    ] = False,
    empty: Annotated[bool, typer.Option("--empty", help="Delete what is in trash/ for good")] = False,
) -> None:
    """Put away runs that their study has given up, and left-over checkpoints; what nobody can account for stays."""
    from advprune_core.base.environment import results_root
    from advprune_core.study.upkeep import collect_garbage

    root = results_root(out)
    if empty:
        shutil.rmtree(root / "trash", ignore_errors=True)
        print(f"{root / 'trash'} is empty")
        return
    found = collect_garbage(root, remove=yes)
    for path, size in found.paths:
        print(f"{'moved to trash' if yes else 'would move to trash'}: {path} ({size / 1e6:.1f} MB)")
    if not found.paths:
        print("nothing to put away")
    if found.unaccounted:
        print(f"{len(found.unaccounted)} runs stay that no study here names: nobody knows whose they are")
    if yes and found.paths:
        print(f"`advprune gc --empty` deletes {root / 'trash'}")


def _print_plan(entries: list[Any], execution: Any) -> None:
    from advprune_core.study.plans import plan

    print(plan(entries, execution))


def _report_left_out(names: list[str]) -> None:
    """Say which runs a new attack had to leave out."""
    if names:
        print(
            f"{len(names)} runs have no weights here, so a new attack on them was left out ({names[0]}, ...): "
            "--retrain trains them again"
        )


def _report_failures(failed: dict[str, str]) -> None:
    for name, message in failed.items():
        print(f"FAILED {name}: {message}", file=sys.stderr)
    if failed:
        raise typer.Exit(1)
