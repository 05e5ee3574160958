"""The two editions of the lessons in this folder: `make course`, or `python notebooks/course/editions.py [FOLDER]`.

The lessons are stored once, solved, with the cell metadata and markers of nbgrader, which can take them as they are. It
is not needed: the student's edition has hints in place of solutions, and no hidden tests; the instructor's is executed.
The student's alone is there at once: `make student`, or the option `--student`.
"""

from __future__ import annotations

import argparse
import re
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

LESSONS = sorted(Path(__file__).parent.glob("[0-9]_*.ipynb"))

_SOLUTION = re.compile(r"^( *)### BEGIN SOLUTION: (.+)\n(?:.*\n)*? *### END SOLUTION$", re.MULTILINE)
_HIDDEN = re.compile(r"^### BEGIN HIDDEN TESTS\n(?:.*\n)*?### END HIDDEN TESTS\n?", re.MULTILINE)


def marked(cell: NotebookNode, what: str) -> bool:
    """Whether a cell's metadata say that it is a "solution", or a check ("grade")."""
    return bool(cell.metadata.get("nbgrader", {}).get(what))


def student(lesson: NotebookNode) -> NotebookNode:
    """A copy with hints, which are raised as errors, in place of solutions, and without hidden tests."""
    copy = nbformat.from_dict(lesson)
    for cell in copy.cells:
        if marked(cell, "solution"):
            cell.source = _SOLUTION.sub(
                lambda found: f"{found[1]}# Write it here.\n{found[1]}raise NotImplementedError({found[2]!r})",
                cell.source,
            )
        elif marked(cell, "grade"):
            cell.source = _HIDDEN.sub("", cell.source).rstrip("\n")
    return copy


def execute(lesson: NotebookNode, *, allow_errors: bool = False) -> None:
    """Run all cells in place, in a kernel of this environment.

    Raises
    ------
    CellExecutionError
        The first error of a cell, unless errors are allowed.
    """
    NotebookClient(lesson, timeout=600, kernel_name="python3", allow_errors=allow_errors).execute()


def write_student(lessons: Iterable[Path], folder: Path) -> None:
    """Write the student's edition to ``folder/student``; nothing is executed, and what is there stays: answers."""
    (folder / "student").mkdir(parents=True, exist_ok=True)
    there = 0
    for path in lessons:
        if (target := folder / "student" / path.name).exists():
            there += 1
        else:
            nbformat.write(student(nbformat.read(path, as_version=4)), target)
    stay = f" ({there} were there already and stay as they are; delete those that should be written anew)"
    print(f"for students: {folder / 'student'}{stay if there else ''}", flush=True)


def write_instructor(lessons: Iterable[Path], folder: Path) -> int:
    """Execute the lessons into ``folder/instructor``; the number of those with an error."""
    (folder / "instructor").mkdir(parents=True, exist_ok=True)
    failed = 0
    for path in lessons:
        lesson, began, says = nbformat.read(path, as_version=4), time.monotonic(), "solved"
        exercises = sum(marked(cell, "solution") for cell in lesson.cells)
        try:
            execute(lesson)
        except CellExecutionError as error:
            failed, says = failed + 1, f"FAILED: {error.ename}: {error.evalue}"
        nbformat.write(lesson, folder / "instructor" / path.name)
        print(f"{path.stem:<16} {exercises} exercises, {time.monotonic() - began:.0f} s, {says}", flush=True)
    print(f"for instructors: {folder / 'instructor'}")
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    """What is written on the command line; 1 where a lesson had an error."""
    parser = argparse.ArgumentParser(
        description="Write the course's editions: the student's (exercises open) to FOLDER/student, then the "
        "instructor's (solved, executed: some minutes) to FOLDER/instructor."
    )
    parser.add_argument(
        "folder", metavar="FOLDER", nargs="?", type=Path, default="lessons", help="default: %(default)s"
    )
    parser.add_argument("--student", action="store_true", help="only the student's edition; nothing is executed")
    chosen = parser.parse_args(arguments)
    write_student(LESSONS, chosen.folder)
    return 0 if chosen.student else min(write_instructor(LESSONS, chosen.folder), 1)


if __name__ == "__main__":
    sys.exit(main())
