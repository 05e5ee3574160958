"""Single runs: train and evaluate one, attack one once more."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated

import typer

from advprune_core.base.settings import ConfigError
from advprune_core.cli.interrupts import interruptible
from advprune_core.cli.options import Data, DryRun, Out, Retrain, assignments, value_of
from advprune_core.cli.reports import not_by_its_rule, print_plan, report_failures, report_left_out


def run(
    ctx: typer.Context,
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
) -> None:
    """Train and evaluate one run; what is there is not run again."""
    from advprune_core.analysis.cells import threat_name
    from advprune_core.analysis.comparisons import on_one_seed
    from advprune_core.attacks.base import parse_attacks
    from advprune_core.base.files import shown
    from advprune_core.base.settings import check_names
    from advprune_core.pruners.base import PRUNERS
    from advprune_core.pruners.random import Full
    from advprune_core.study.commands import typed
    from advprune_core.study.evaluations import PGD_40
    from advprune_core.study.execution import Execution
    from advprune_core.study.grid import Entry
    from advprune_core.study.runner import run_entries
    from advprune_core.study.store import RunStore
    from advprune_core.study.study import pruner_label
    from advprune_core.trainers.config import RunConfig, flat_fields
    from advprune_core.trainers.controls import CONTROLS, check_control, control_arm
    from advprune_core.trainers.sentinel import depth

    asked = {name: value_of(text) for name, text in ctx.obj.items() if text is not None}
    settings = assignments(set_) if set_ else {}
    # At once, because lengths and radii follow from other settings: what has an option is one, however it is given.
    options = {path: name for name, path in flat_fields().items()} | {"trainer": "trainer"}
    asked |= {options[path]: settings.pop(path) for path in list(settings) if path in options}
    config = RunConfig.flat(**asked).with_settings(settings)
    if "fraction" not in asked and not isinstance(PRUNERS.parse(asked.get("pruner", "full")), Full):
        raise ConfigError(
            f"--pruner {typed(asked['pruner'])} needs the share of the images to keep, as in --fraction 0.4"
        )
    attacks = parse_attacks([value_of(text) for text in evaluation]) if evaluation else PGD_40
    execution = Execution(engine="serial", timed_repeats=0, data=data, results=out, retrain=retrain)
    label = pruner_label(config.pruner)
    entries = [Entry(label, config.fraction, config.seed, config, attacks=attacks)]
    if control is not None:
        check_names([control], CONTROLS, what="control")
        whole = {name: value for name, value in asked.items() if name not in ("pruner", "fraction")}
        common = {path: value for path, value in settings.items() if not path.startswith("pruner.")}
        full = RunConfig.flat(**whole).with_settings(common)
        check_control(control, config, full=full)  # type: ignore[arg-type]
        entries.append(replace(entries[0], arm=control_arm(control, label), control=control))  # type: ignore[arg-type]
    if dry_run:
        print_plan(entries, execution)
        return
    with interruptible():
        driver = run_entries(entries, execution=execution, name=entries[0].describe())
    store, robust = RunStore(execution.root), {}
    for number, key in driver.grid.keys.items():
        store.ask_for(key)
        record = store.run(key)
        if record is None or record.status == "failed":
            continue
        when = ""
        if record.collapse_epoch is not None:
            fall = f"held-out robust accuracy fell by {100 * depth(record.epochs):.0f} points"
            when = f" (seen in epoch {record.collapse_epoch}; {fall})"
        title, kind = entries[0].describe(), entries[number].control
        if kind is not None:
            title = f"{kind} of {title} ({CONTROLS[kind]})"
        print(f"{title}: status {record.status}{when}, {record.cost:,} forward-equivalents")
        threat = entries[number].config.threat
        print(f"  trained and attacked within {threat_name(threat.norm, threat.eps)}")
        if record.n_filled:
            print(f"  keeps {record.kept} of {record.n} images{not_by_its_rule(record.n_filled)}")
        if record.wrong_labels is not None:
            print(f"  of the labels it kept {100 * record.wrong_labels:.1f} % are wrong")
        found = store.evaluation(key, driver.grid.evaluation_key(number))
        for name, value in ({"clean": found.clean, **found.attacks} if found else {}).items():
            print(f"  {name:24} {value.text()}")
        for doubt in found.warnings if found else ():
            print(f"  in doubt: {doubt}")
        print(f"  in {shown(store.folder(key))}")
        if found:
            robust[key] = found.outcome().robust
    if len(robust) > 1:  # a control of the full run is that run
        print(f"robust accuracy: {on_one_seed(*robust.values(), against=str(control))}")
    report_left_out(driver.without_weights)
    report_failures(driver.failed)


def evaluate(
    run_key: Annotated[str | None, typer.Argument(help="Key of a run, or its beginning")] = None,
    weights: Annotated[str | None, typer.Option(help="State dict (.pt) of your own, instead of a run")] = None,
    model: Annotated[
        str | None, typer.Option(help="Network of --weights: a name, YAML, or module:factory [default: small_cnn]")
    ] = None,
    dataset: Annotated[str | None, typer.Option(help="Data set of --weights [default: digits]")] = None,
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
    from advprune_core.base.files import shown
    from advprune_core.study.single_evaluation import evaluate_checkpoint

    if (run_key is None) == (weights is None):
        raise ConfigError("name either a run or --weights")
    if run_key is not None and (model, dataset) != (None, None):
        raise ConfigError("--model and --dataset are of --weights; a run has its own")
    if weights is not None and (checkpoint != "last" or retrain):
        raise ConfigError("--checkpoint and --retrain are of a run; --weights of your own are tested as they are")
    with interruptible():
        record, path = evaluate_checkpoint(
            run_key=run_key,
            weights=weights,
            own={"model": value_of(model or "small_cnn"), "dataset": value_of(dataset or "digits")},
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
    for doubt in record.warnings:
        print(f"in doubt: {doubt}")
    print(f"{record.n} test images, in {shown(path)}")
