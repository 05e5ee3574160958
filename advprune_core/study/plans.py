"""Plans: a grid with what is there, and what the rest will take on this machine. What ``--dry-run`` prints."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import torch

from advprune_core.base.settings import ConfigError
from advprune_core.datasets.splits import Dataset
from advprune_core.models.base import build_model
from advprune_core.study.alone import timings_lacking
from advprune_core.study.compiling import checked_entries
from advprune_core.study.elsewhere import finished, found, needed_again
from advprune_core.study.execution import Execution
from advprune_core.study.grid import Datasets, Entry, timed_entries
from advprune_core.study.runner import expected_total
from advprune_core.study.store import RunStore
from advprune_core.study.tasks import few_steps
from advprune_core.study.waiting import passes_saved
from advprune_core.trainers.config import RunConfig
from advprune_core.trainers.loop import train

#: Seconds that may be spent on timing a grid, all its ways of training together.
TIMING = 5.0
#: Of a network's ways of training so many are timed, those with the most to do; short timings tell little.
TIMED = 3
#: Images of the smallest batch that is timed: BatchNorm needs two.
LEAST = 2
#: Between what shares of the time that was measured training will take: processors change their clock, and share
#: memory and caches. With a batch many times larger than the one that was timed they may do better.
NOISE, LARGER = (0.9, 1.1), (0.8, 1.1)
#: The same of compiled passes, of the time of plain ones in their layout: the least and the most that was seen on
#: processors with AVX2 and with AVX-512.
COMPILED = (0.7, 1.0)


@dataclass(frozen=True)
class Pace:
    """Seconds that a forward-equivalent of training takes.

    Attributes
    ----------
    low, high : float
        In all likelihood between these.
    images : int
        Size of the batch that was timed.
    """

    low: float
    high: float
    images: int


def plan(entries: Sequence[Entry], execution: Execution) -> str:
    """The grid with what is there, and the cost of the rest.

    Nothing is compiled and nothing is written. Time is estimated from a few steps of training on this
    machine, see `measured_pace`.
    """
    entries, datasets = checked_entries(entries, execution, read_only=True)
    store = RunStore(execution.root, read_only=True)
    rows, missing, plainly, impossible = [], {}, set(), []
    alike: dict[str, tuple[RunConfig, Dataset]] = {}
    timed = timed_entries(entries, execution.timed_repeats)
    alone = {entry.identity() for entry in timed}
    for entry in entries:
        dataset, test, config, state = datasets[entry.config.dataset], entry.evaluation, None, "to do"
        try:
            config = entry.resolved(finished(entry.config, test, dataset, store, execution))
        except ConfigError as error:
            state = "not possible"
            impossible.append(f"\n{entry.describe()} is not possible: {error}")
        else:
            if config is None:
                state = "after the run it matches"
            elif (record := finished(config, test, dataset, store, execution)) is not None:
                state = "to do again" if needed_again(record, test, dataset, store, execution) else "there"
            elif store.finished(config.replace(speed="exact").train_key(dataset)) is not None:
                plainly.add(entry.identity())
        if state not in ("there", "not possible"):
            missing[entry.identity()] = entry
            if not (config is None or entry.derived or entry.identity() in alone or execution.engine == "ray"):
                alike[config.train_key(dataset)] = config, dataset
        passes = f"{expected_total([entry], datasets):,.0f}"
        kept = "" if config is None else config.fraction  # a control's is known when it is resolved
        place = {"arm": entry.arm, "fraction": kept, "matched_fraction": entry.fraction, "seed": entry.seed}
        rows.append({**place, "state": state, "passes": passes})
    saved = passes_saved(alike, store)
    timings = _timings(timed, missing, datasets, store, execution)
    left = [*missing.values(), *timings]
    total = _left_to_train(left, datasets, saved)
    count = f"{len(entries)} entries" if len(entries) != 1 else "1 entry"
    text = (
        f"{pd.DataFrame(rows).to_string(index=False)}\n"
        f"{count}, at most {len(missing)} to train: {total:,.0f} forward-equivalents"
    )
    if saved:
        text += f" ({sum(saved.values()):,.0f} less than by themselves: {len(saved)} runs share a warm-up with another)"
    once_more = _left_to_train(timings, datasets, {})
    if timings:
        text += f" ({once_more:,.0f} of them for {len(timings)} trainings more, to time runs alone)"
    if any(entry.config.device == "cuda" for entry in left) and not torch.cuda.is_available():
        text += "; how long that takes only a machine with a GPU can tell"
    elif left:
        text += _expected_time(left, datasets, execution.worker_count, saved, serial=once_more / total)
    if plainly:
        text += (
            f"\n{len(plainly)} of them are there as exact runs, which is what they are where nothing can be compiled"
        )
    return "".join([text, *impossible])


def _timings(
    timed: Sequence[Entry], missing: Mapping[str, Entry], datasets: Datasets, store: RunStore, execution: Execution
) -> list[Entry]:
    """The entries that are trained for their time alone, each as often, beside a training that they need anyway."""
    often = []
    for entry in timed:
        dataset = datasets[entry.config.dataset]
        if found(entry.config, entry.evaluation, dataset, store, execution) == entry.config:
            lacking = timings_lacking(store, entry.config.train_key(dataset), execution.timed_repeats)
            often += [entry] * (lacking - (lacking > 0 and entry.identity() in missing))
    return often


def _expected_time(
    entries: Sequence[Entry], datasets: Datasets, workers: int, saved: Mapping[str, float], *, serial: float = 0.0
) -> str:
    """What training takes, of which the share `serial` keeps one worker busy at a time, and how that is known."""
    kinds: dict[str, dict[str, list[Entry]]] = {}
    for entry in entries:
        kinds.setdefault(_kind(entry.config), {}).setdefault(_way(entry.config), []).append(entry)
    each = max(1, TIMED // len(kinds))
    seconds = TIMING / sum(min(each, len(ways)) for ways in kinds.values())
    low = high = 0.0
    images = set()
    for ways in kinds.values():
        passes = {way: _left_to_train(own, datasets, saved) for way, own in ways.items()}
        paces = {}
        for way in sorted(passes, key=lambda way: -passes[way])[:each]:
            first = ways[way][0].config
            paces[way] = measured_pace(first, datasets[first.dataset], seconds=seconds)
            images.add(paces[way].images)
        slowest, fastest = max(pace.high for pace in paces.values()), min(pace.low for pace in paces.values())
        low += sum(passes[way] * (paces[way].low if way in paces else fastest) for way in ways)
        high += sum(passes[way] * (paces[way].high if way in paces else slowest) for way in ways)
    about = math.sqrt(low * high)
    together = f"{duration(about * (serial + (1 - serial) / workers))} with {workers}, " if workers > 1 else ""
    seen = " or ".join(map(str, sorted(images)))
    text = (
        f", about {duration(about)} of one worker, {together}evaluation not counted\n"
        f"between {duration(low)} and {duration(high)} of one worker, by a few steps on {seen} images at once"
    )
    if any(entry.config.speed == "compiled" for entry in entries):
        text += (
            f"; these were not compiled, compiled ones take {COMPILED[0]:g} to {COMPILED[1]:g} of their time "
            "(and a minute or so to compile)"
        )
    return text


def _left_to_train(entries: Sequence[Entry], datasets: Datasets, saved: Mapping[str, float]) -> float:
    """Forward-equivalents of trainings, less what runs need not train themselves; `saved`: see `passes_saved`."""
    keys = {entry.config.train_key(datasets[entry.config.dataset]) for entry in entries if not entry.derived}
    whole = sum(expected_total([entry], datasets) for entry in entries)
    return whole - sum(saved.get(key, 0.0) for key in keys)


def _kind(config: RunConfig) -> str:
    """Equal for runs of about one pace, since passes are what is counted: network, images and how they are computed."""
    shape = (config.optimisation.batch_size, config.precision, config.device, config.threads, config.speed)
    return json.dumps([*shape, config.dataset.canonical(), config.model.canonical()], sort_keys=True)


def _way(config: RunConfig) -> str:
    """Equal for runs of one pace."""
    return json.dumps([config.objective.canonical(), config.attack.canonical()], sort_keys=True)


def measured_pace(config: RunConfig, dataset: Dataset, *, seconds: float = TIMING) -> Pace:
    """Time a few steps of training on this machine, and forget them.

    Steps are taken on ever more images, up to a whole batch, as long as `seconds` allow; where they
    end before, what more images add to a step says how fast a whole batch may be. On a CPU it is
    time of the processor, so that it counts little what else the machine is busy with, and of one
    thread, because several wait for each other on a busy machine: as many as a run has gain from half
    of their number to all of it. Nothing is compiled: a compiled run is timed by plain passes in its
    layout, and takes `COMPILED` of them.
    """
    batch = config.optimisation.batch_size
    size, spent = min(LEAST, batch), 0.0
    _step(config, dataset, size)  # first calls load what later ones reuse
    steps: dict[int, list[float]] = {}
    while True:
        own, passed = _step(config, dataset, size)
        steps.setdefault(size, []).append(own)
        spent += passed
        # Twice as many images take up to twice as long, and three times, to be sure.
        if size < batch and len(steps[size]) == 1 and spent + 6 * passed <= seconds:
            size = min(2 * size, batch)
        elif len(steps[size]) == 3 or spent + passed > seconds:
            break
    least, most = min(steps[size]), max(steps[size])
    low, high = least / size, most / size
    if size < batch:  # some of a step's time is the same whatever its size: half of it, where one size was all
        more = least - steps[size // 2][0] if size // 2 in steps else least / 4
        low = min(low, max(0.0, more) / (size - size // 2))
    threads = min(config.threads, os.cpu_count() or 1) if config.device == "cpu" else 1
    margins = [NOISE if size == batch else LARGER, (1 / threads, min(1.0, 2 / threads))]
    margins += [COMPILED] if config.speed == "compiled" else []
    return Pace(low * math.prod(m[0] for m in margins), high * math.prod(m[1] for m in margins), size)


def _step(config: RunConfig, dataset: Dataset, size: int) -> tuple[float, float]:
    """Seconds of a step on `size` images for each of its passes of them all, and seconds that went by."""
    brief = few_steps(config, dataset, steps=1, size=size).replace(speed="exact", threads=1)
    model = build_model(config.model, dataset, seed=config.seed)
    if config.speed == "compiled":
        model = model.to(memory_format=torch.channels_last)
    ledger = train(brief, dataset, model=model).ledger
    passed = ledger["seconds"]["train"]
    own = ledger["cpu_seconds"]["train"] if config.device == "cpu" else passed
    return own * size / ledger["passes"]["train"], passed


def duration(seconds: float) -> str:
    """A length of time as people say it, to two digits: ``40 seconds``, ``3.3 hours``, ``18 days``."""
    for unit, length in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.0f} {unit}" if seconds >= 9.95 * length else f"{seconds / length:.1f} {unit}"
    return f"{seconds:.0f} seconds" if seconds >= 9.95 else f"{seconds:.1f} seconds"
