"""Studies: the folder for them, and carrying one out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from advprune_core.base.settings import ConfigError
from advprune_core.cli.interrupts import interruptible
from advprune_core.cli.options import DryRun, Out, Retrain, assignments, put_over, shard_of
from advprune_core.cli.reports import print_plan, report_failures, report_left_out

if TYPE_CHECKING:
    from advprune_core.analysis.ranking import Ranking
    from advprune_core.study.study import StudyConfig


def init(
    folder: Annotated[str, typer.Argument(help="Where to; it may exist")],
) -> None:
    """Lay the notebooks and profiles out in a folder, to work there; what is in it stays as it is."""
    from advprune_core.base.files import own_path
    from advprune_core.study.notebooks import lay_out

    place = own_path(folder)
    written, there = lay_out(place)
    stay = f"; {len(there)} were there already and stay as they are" if there else ""
    print(f"{len(written)} files written to {place / 'notebooks'}{stay}")
    print("In that folder: advprune study digits")


def study(
    files: Annotated[
        list[str] | None,
        typer.Argument(help="At most one profile (.yaml), and notebooks (.ipynb), by path or by name: digits"),
    ] = None,
    profile: Annotated[
        str | None, typer.Option("-f", "--profile", help="Parameter file (YAML), by path or by name")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            "--parameter",
            help="NAME=VALUE over the profile's: epochs=3, settings.precision=bfloat16; repeatable",
        ),
    ] = None,
    out: Out = None,
    shard: Annotated[str | None, typer.Option(help="Only part i/n of the runs, without notebooks")] = None,
    retrain: Retrain = False,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster to run on: host:port, auto, ray://host:port; sets engine=ray")
    ] = None,
    dry_run: DryRun = False,
) -> None:
    """Carry out a study and execute its notebooks: the profile's, by default accuracy_vs_fraction and runtime."""
    from advprune_core.analysis.summaries import printable
    from advprune_core.base.files import shown
    from advprune_core.study.engines import no_workers_left
    from advprune_core.study.executed import execute, study_of
    from advprune_core.study.notebooks import default_notebooks, find_notebook, find_profile, is_profile
    from advprune_core.study.runner import run_study
    from advprune_core.study.study import read_profile

    given = [name for name in files or [] if is_profile(name, first=profile is None)]
    named = given if profile is None else [*given, profile]
    if len(named) > 1:
        raise ConfigError(f"one profile at a time, not {len(named)}: {', '.join(named)}")
    profiles = [find_profile(name) for name in named]
    parameters, of_profile = read_profile(profiles[0]) if profiles else ({}, [])
    parameters = put_over(parameters, assignments(parameter or []))
    if out is not None:
        parameters["results"] = out
    if address is not None:
        parameters |= {"engine": "ray", "address": address}
    asked = [name for name in files or [] if name not in given] or of_profile
    notebooks = [find_notebook(name) for name in asked] or default_notebooks(profiles)
    studies = [(path, study_of(path, parameters)) for path in notebooks]
    part = shard_of(shard)
    failed: dict[str, str] = {}
    with no_workers_left():
        for config, ranking in _grids(studies, parameters, part):
            if dry_run:
                _print_plans(config, ranking, part, retrain=retrain)
                continue
            with interruptible():
                only = None
                if ranking:
                    ranks = run_study(ranking.config, retrain=retrain)
                    failed |= ranks.failed
                    only = ranking.winners(ranks.table)
                result = run_study(config, shard=part, retrain=retrain, only=only)
                failed |= result.failed
                if part is None:
                    print(printable(result.table).to_string(index=False))
                    for path in execute([path for path, other in studies if other == config], parameters, config):
                        print(f"executed {shown(path)}")
            if part is None:
                figures = ", ".join(shown(path) for path in sorted(config.folder.glob("*.png")))
                print(f"tables and figures in {shown(config.folder)}: {figures}")
            alone = f", and {result.timed} trained once more to be timed alone" if result.timed else ""
            print(f"{result.trained} runs trained and {result.evaluated} evaluated now{alone}; the rest was there")
            report_left_out(result.without_weights)
    report_failures(failed)


def _grids(
    studies: list[tuple[Path, StudyConfig]], parameters: dict[str, Any], part: tuple[int, int] | None
) -> list[tuple[StudyConfig, Ranking | None]]:
    """The grids to carry out, each once: notebooks of one grid are executed together.

    Raises
    ------
    ConfigError
        Before any work: what is wrong with any of them, or two of one name, of which the later would take the
        manifest and give the runs of the earlier up.
    """
    from advprune_core.study.grid import study_grid

    grids: list[tuple[StudyConfig, Ranking | None]] = []
    names: dict[str, tuple[Path, StudyConfig]] = {}
    for notebook, config in studies:
        first, same = names.setdefault(config.study, (notebook, config))
        if same != config:
            raise ConfigError(
                f"{first.name} and {notebook.name} have different grids of one name, study = {config.study!r}: name "
                "one notebook at a time, each with a study of its own (-p study=NAME)"
            )
        if first is not notebook:
            continue
        ranking = _ranking(notebook, parameters, config)
        if ranking and part:
            raise ConfigError(f"--shard: {notebook.name} chooses by its first runs which others are needed")
        study_grid(config, shard=part)
        grids.append((config, ranking))
    return grids


def _ranking(notebook: Path, parameters: dict[str, Any], config: StudyConfig) -> Ranking | None:
    """What a notebook chooses its runs by, if it does."""
    from advprune_core.analysis.ranking import Options, Ranking
    from advprune_core.study.executed import parameters_of

    values = parameters_of(notebook) | parameters
    if "choice_seeds" not in values:
        return None
    return Ranking.of(config, **{name: values[name] for name in Options.model_fields if name in values})


def _print_plans(
    config: StudyConfig, ranking: Ranking | None, part: tuple[int, int] | None, *, retrain: bool = False
) -> None:
    """What a study will take; of one that chooses the ranking too, and of the rest what this has chosen, if it has."""
    from advprune_core.study.grid import study_grid
    from advprune_core.study.runner import execution_of

    entries, execution = study_grid(config, shard=part), execution_of(config, shard=part, retrain=retrain)
    if ranking:
        print("The ranking:")
        print_plan(study_grid(ranking.config), execution_of(ranking.config, retrain=retrain))
        print("\nThen the first places of the ranking, of:")
        if (only := _chosen(ranking)) is not None:
            entries = [entry for entry in entries if (entry.arm, entry.fraction) in only]
    print_plan(entries, execution)


def _chosen(ranking: Ranking) -> list[tuple[str, float]] | None:
    """Who is tested, where this very ranking has been carried out; None where it has not."""
    from advprune_core.study.store import RunStore
    from advprune_core.study.study import study_config
    from advprune_core.study.table import collect

    config = ranking.config
    if not (config.folder / "manifest.json").exists():
        return None
    made = RunStore(config.execution.root).manifest(config.study)
    if study_config({**config.model_dump(), **made.config}) != config:
        return None
    table = collect(config.execution.root, study=config.study)
    if len(table) < len(made.entries) or "robust" not in table:
        return None
    ended = table["robust"].notna() | ~table["status"].isin(["ok", "collapsed"])
    return ranking.winners(table) if ended.all() else None
