"""What is in results folders: as a table, to and from elsewhere, verified, tidied up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from advprune_core.base.settings import ConfigError
from advprune_core.cli.options import Out


def collect(
    results: Annotated[
        list[str] | None, typer.Argument(help="Results folders; records of all are put together")
    ] = None,
    study_name: Annotated[str | None, typer.Option("--study", help="Only the runs of this study")] = None,
    out: Annotated[str | None, typer.Option("--out", help="Write a .csv or .tex file instead of printing")] = None,
) -> None:
    """Put the records of all runs into one table."""
    from advprune_core.base.environment import results_root
    from advprune_core.base.files import own_path, write_text
    from advprune_core.study.record_files import check_is_results
    from advprune_core.study.table import collect as collect_records

    folders = [own_path(folder) for folder in results or []] or [results_root()]
    for folder in folders:
        check_is_results(folder)
    table = collect_records(*folders, study=study_name)
    if out is None:
        columns = ["key", "arm", "dataset", "pruner", "fraction"]
        columns += ["matched_fraction", "seed", "status", "clean", "robust", "cost"]
        print(table[[name for name in columns if name in table]].to_string(index=False) if len(table) else "no runs")
    elif out.endswith((".csv", ".tex")):
        write_text(
            own_path(out),
            table.to_csv(index=False) if out.endswith(".csv") else table.to_latex(index=False, escape=True),
        )
        print(f"{len(table)} rows in {out}")
    else:
        raise ConfigError(f"--out must end in .csv or .tex, not {out!r}")


def export(
    study_name: Annotated[str, typer.Argument(help="Name of a study")],
    folder: Annotated[str, typer.Argument(help="Where its records, tables, figures and notebooks are copied")],
    out: Out = None,
) -> None:
    """Copy a study, finished or not, without weights: records, tables, figures, notebooks (for publication)."""
    from advprune_core.analysis.pages import write_page
    from advprune_core.base.environment import results_root
    from advprune_core.base.files import own_path
    from advprune_core.study.archive import export_study

    done = export_study(study_name, own_path(folder), results=results_root(out))
    write_page(own_path(folder), study_name)
    print(f"{done.runs} runs of {study_name} in {folder}")
    for text in done.missing:
        print(f"MISSING {text}")


def report(
    studies: Annotated[
        list[str] | None, typer.Argument(help="Names of studies, or folders of exported ones", metavar="STUDY...")
    ] = None,
    out: Annotated[str, typer.Option("--out", help="The page to write (.html)")] = "report.html",
    results: Annotated[
        str | None, typer.Option("--results", help="Results folder [default: $ADVPRUNE_RESULTS or ./results]")
    ] = None,
) -> None:
    """Write one page of studies that opens from a file: answer, figures, sortable tables, cost, how to repeat them."""
    from advprune_core.analysis.report import report as page_of
    from advprune_core.base.environment import results_root
    from advprune_core.base.files import own_path, write_text
    from advprune_core.study.record_files import read_manifest

    if not out.endswith(".html"):
        raise ConfigError(f"--out must end in .html, not {out!r}")
    root, sources = results_root(results), []
    for name in studies or []:
        folder = own_path(name)
        exported = (folder / "manifest.json").is_file() and not (folder.parent / "runs").is_dir()
        if exported:
            sources.append((folder, read_manifest(folder / "manifest.json").study))
        elif folder.parent == Path():
            sources.append((root, folder.name))
        elif (folder.parent / "runs").is_dir():
            sources.append((folder.parent, folder.name))
        else:
            raise ConfigError(f"{name} is no study: neither an exported one, nor a folder of one in a results folder")
    write_text(own_path(out), page_of(sources))
    print(f"{', '.join(study for _, study in sources)} in {out}")


def import_(
    folder: Annotated[str, typer.Argument(help="An exported study, or a results folder")],
    out: Out = None,
) -> None:
    """Bring a study into the results, every record verified: its runs are finished here, with or without weights."""
    from advprune_core.base.environment import results_root
    from advprune_core.base.files import own_path
    from advprune_core.study.incoming import import_study

    root = results_root(out)
    found = import_study(own_path(folder), results=root)
    there = f", {len(found.there)} were there already and stay as they are" if found.there else ""
    print(f"{len(found.runs)} runs imported into {root}{there}")
    if found.otherwise:
        print(
            f"{len(found.otherwise)} of those that were there came out otherwise in {folder}, as on another kind of "
            "processor: what these were tested by stays there"
        )
    if found.without_digests:
        print(
            f"{len(found.without_digests)} of them have records without digests, of an older version: taken as they "
            "are, and marked"
        )
    if found.other_code:
        print(f"{len(found.other_code)} of them were made by other code than today's, which would make them anew")
    if found.own_weights:
        print(f"what was tested of {len(found.own_weights)} weights of one's own came in, too")
    for manifest in found.other_manifests:
        print(
            f"{manifest} stays as it is: the one in {folder} names other runs, and not all that this one names "
            "(a study carried out with either's parameters writes its own)"
        )
    for path, reason in found.refused.items():
        print(f"REFUSED {path}: {reason}", file=sys.stderr)
    if found.refused:
        raise typer.Exit(1)


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


def gc(
    out: Out = None,
    yes: Annotated[
        bool, typer.Option("--yes", help="Move it to trash/; without it, only say what would be moved")
    ] = False,
    empty: Annotated[bool, typer.Option("--empty", help="Delete what is in trash/ for good")] = False,
) -> None:
    """Put away runs that their study has given up, and left-over checkpoints; what nobody can account for stays."""
    from advprune_core.base.environment import results_root
    from advprune_core.study.record_files import check_is_results
    from advprune_core.study.upkeep import collect_garbage, empty_trash

    root = results_root(out)
    check_is_results(root)
    if empty:
        gone, stay = empty_trash(root)
        left = f"; {', '.join(map(str, stay))} stays: gc has not put it there" if stay else ""
        print(f"{len(gone)} folders deleted from {root / 'trash'}{left}")
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
