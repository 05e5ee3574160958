"""One table of what this project takes beside others: `python -m benchmarks.bench`.

    python -m benchmarks.bench [--only NAME ...] [--again NAME ...] [--long] [--rounds N] [--list]

Carries out the short cases, with `--long` the long ones, with `--only` those whose names begin so, one after
the other. After each round the amounts are kept in results/benchmarks/timings.csv: the same command goes on
where it was, and what is finished on this device is not done again, unless `--again` names it. Data come from
$ADVPRUNE_DATA or are downloaded. What is known of all cases, on this device or an earlier one, is written
to results/reference/benchmarks (`--out`):

* benchmarks.csv: a row for each goal. The ratio is the peer's median over ours; it is met at the target or above.
* timings.csv: every amount of every round, seconds of a processor unless its unit is another.
* benchmarks.png, benchmarks.svg, README.md: both as people read them.
* environment.json: versions and hardware.

It ends with status 1 if a case could not be measured. A peer that is not installed does not count as met.
"""

from __future__ import annotations

import argparse
import json
import sys
import warnings
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import pandas as pd
import torch
from filelock import FileLock, Timeout
from threadpoolctl import threadpool_limits

from advprune_core.analysis.style import write
from advprune_core.analysis.summaries import markdown
from advprune_core.base.environment import environment, git_state
from advprune_core.base.files import write_text
from benchmarks import attacks, autoattack, commands, data_path, pursuit, runs, time_to_accuracy, training_steps
from benchmarks.cases import Case, chosen, missing_rounds, table
from benchmarks.networks import work_folder
from benchmarks.picture import draw
from benchmarks.readings import Readings, Rounds, read

CASES: list[Case] = [
    *attacks.CASES,
    *training_steps.CASES,
    *pursuit.CASES,
    *runs.CASES,
    *autoattack.CASES,
    *data_path.CASES,
    *commands.CASES,
    *time_to_accuracy.CASES,
]
PAGE = """# Beside others

Written by `python -m benchmarks.bench` (`make bench`, `make bench-long`); an edit here is lost. *Ratio* is the peer's
median over ours, of alternating rounds on one thread, after results were seen to agree; a row is met at its target or
above. Where there is no peer, it is the time allowed over the time taken. *Exact* is plain PyTorch, *compiled* is
`torch.compile`. Raw amounts are in `timings.csv`; what was tried and missed, in `benchmarks/NOTES.md`.

{told}

{table}
"""
OUT = Path("results/reference/benchmarks")
#: Peers that are libraries of others.
LIBRARIES = ("torchattacks", "Foolbox", "ART", "pyautoattack", "torchvision")
#: Times that differ by less are alike.
_ALIKE = 1.05
VERSIONS = ("torchattacks", "foolbox", "adversarial-robustness-toolbox", "pyautoattack", "torchvision")


def carry_out(case: Case, readings: Readings, path: Path, *, device: str) -> None:
    """Measure the rounds that a case lacks on this device, and keep each of them."""
    known = readings.of(case.name)
    if known.device != device:
        known = Rounds(unit=case.unit, device=device)
        readings = readings.replaced(case.name, known)
    left = missing_rounds(case, readings)
    if not left:
        return
    print(f"{case.name}: {case.work}, {case.setting}; {len(left)} of {case.rounds} rounds", flush=True)
    with case.begin() as one_round:
        if case.warm_up:
            one_round(0)
        for number in left:
            known = known.added(number, one_round(number))
            readings.replaced(case.name, known).write(path)


def printable(rows: pd.DataFrame) -> pd.DataFrame:
    """The table as people read it."""
    ratio = rows["ratio"].map(lambda value: "" if pd.isna(value) else f"{value:.2f}")
    device = rows["device"].map(lambda name: "" if pd.isna(name) else name)
    return rows.assign(ratio=ratio, target=rows["target"].map("{:.3g}".format), device=device)


def page(rows: pd.DataFrame, ceilings: pd.DataFrame) -> str:
    """The table as a page."""
    counts = rows["met"].value_counts()
    told = f"Of our own targets {counts.get('yes', 0)} of {len(rows)} are met, {counts.get('no', 0)} are missed"
    other = len(rows) - counts.get("yes", 0) - counts.get("no", 0)
    figure = ["", "![Ratios in units of their targets](benchmarks.png)"] if rows["ratio"].notna().any() else []
    told += f", {other} are open." if other else "."
    missed = rows[rows["met"] == "no"].merge(ceilings)
    if beyond := int((missed["ceiling"] < missed["target"]).sum()):
        told += (
            f" {beyond} of the missed targets are beyond what there would be if nothing took time but passes, in"
            " compiled rows convolutions ([ceilings.csv](ceilings.csv), `python -m benchmarks.ceilings`)."
        )
    return PAGE.format(told="\n".join([*_beside_others(rows), told, *figure]), table=markdown(printable(rows)))


def _beside_others(rows: pd.DataFrame) -> list[str]:
    """In how many rows of time ours is faster than other libraries, and the ratios to each."""
    peers = rows["peer"].fillna("").str.partition(",")[0]
    timed = peers.isin(LIBRARIES) & rows["ratio"].notna() & ~rows["work"].str.startswith("memory")
    known = rows.assign(peer=peers)[timed]
    if not len(known):
        return []
    ends = known.groupby("peer")["ratio"].agg(["min", "max"]).sort_values("max")
    told = [f"{peer} {' to '.join(dict.fromkeys(f'{end:.2f}' for end in both))}" for peer, both in ends.iterrows()]
    faster = int((known["ratio"] > _ALIKE).sum())
    return [
        f"Faster than other libraries by more than {100 * (_ALIKE - 1):.0f} % in {faster} of {len(known)} rows of "
        f"time, compiled ones included; ratios: {', '.join(told)}.",
        "",
    ]


def publish(readings: Readings, out: Path) -> pd.DataFrame:
    """Write the table, its amounts, figure and page: what is known of all cases, here or from earlier."""
    known = readings.over(read(out / "timings.csv"))
    rows = table(CASES, known)
    known.write(out / "timings.csv")
    write_text(out / "benchmarks.csv", rows.to_csv(index=False, float_format="%.4g"))
    rows = pd.read_csv(out / "benchmarks.csv")  # the page is of what was written
    ceilings = known_ceilings(out)
    write_text(out / "README.md", page(rows, ceilings))
    if rows["ratio"].notna().any():
        write(draw(rows, ceilings), out / "benchmarks.png")
    return rows


def known_ceilings(out: Path) -> pd.DataFrame:
    """What `benchmarks.ceilings` has written into a folder, beside what names a row; nothing where it was not."""
    path, columns = out / "ceilings.csv", ["work", "setting", "peer", "device", "ceiling"]
    return pd.read_csv(path, usecols=columns) if path.exists() else pd.DataFrame(columns=columns)


def versions() -> dict[str, str]:
    """Of the peers that are installed."""
    found = {}
    for name in VERSIONS:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def measure(cases: Sequence[Case], path: Path) -> list[str]:
    """Carry out cases one after the other on one thread; sentences on those that failed."""
    device, failed, threads = str(environment("cpu")["device"]), list[str](), torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # peers warn of their own arithmetic
        for case in cases:
            try:
                carry_out(case, read(path), path, device=device)
            except Exception as error:
                failed.append(f"{case.name} could not be measured: {error}")
                print(failed[-1], flush=True)
    torch.set_num_threads(threads)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="NAME", help="only cases whose names begin so")
    parser.add_argument(
        "--again", nargs="+", default=[], metavar="NAME", help="forget what is known of them, and do so"
    )
    parser.add_argument("--long", action="store_true", help="the long cases")
    parser.add_argument("--rounds", type=int, help="fewer rounds, for a first look")
    parser.add_argument("--list", action="store_true", help="names of all cases, and how many rounds they lack")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args(arguments)
    try:
        wanted = chosen(CASES, [*options.only, *options.again], long=options.long)
        forgotten = chosen(CASES, options.again, long=options.long) if options.again else []
    except ValueError as error:
        parser.error(str(error))
    path = work_folder() / "timings.csv"
    if options.list:
        for case in CASES:
            print(f"{case.name}{' (long)' if case.long else ''}: {len(missing_rounds(case, read(path)))} rounds left")
        return 0
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            if forgotten:
                read(path).without(*(case.name for case in forgotten)).write(path)
            failed = measure([case.with_rounds(options.rounds or case.rounds) for case in wanted], path)
            rows = publish(read(path), options.out)
    except Timeout:
        parser.error(f"another benchmark is under way in {path.parent}; it would be in the way of this one's seconds")
    facts = {**environment("cpu"), "threads": 1, "peers": versions(), **git_state()}
    write_text(options.out / "environment.json", json.dumps(facts, indent=1) + "\n")
    print(printable(rows).to_string(index=False))
    print(*failed, sep="\n")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
