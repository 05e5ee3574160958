"""The two editions of the lessons in this folder: `make course`, or `python notebooks/course/editions.py [FOLDER]`.

The lessons are stored once, solved, with the cell metadata and markers of nbgrader, which can take them as they are. It
is not needed: the student's edition has hints in place of solutions, and no hidden tests; the instructor's is executed.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterable
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


def write_editions(lessons: Iterable[Path], folder: Path) -> int:
    """Write both editions to ``folder/student`` and ``folder/instructor``; the number of lessons with an error."""
    failed = 0
    for edition in ("student", "instructor"):
        (folder / edition).mkdir(parents=True, exist_ok=True)
    for path in lessons:
        lesson, began, says = nbformat.read(path, as_version=4), time.monotonic(), "solved"
        exercises = sum(marked(cell, "solution") for cell in lesson.cells)
        nbformat.write(student(lesson), folder / "student" / path.name)
        try:
            execute(lesson)
        except CellExecutionError as error:
            failed, says = failed + 1, f"FAILED: {error.ename}: {error.evalue}"
        nbformat.write(lesson, folder / "instructor" / path.name)
        print(f"{path.stem:<16} {exercises} exercises, {time.monotonic() - began:.0f} s, {says}", flush=True)
    print(f"for students: {folder / 'student'}; for instructors: {folder / 'instructor'}")
    return failed


if __name__ == "__main__":
    sys.exit(min(write_editions(LESSONS, Path(*sys.argv[1:2] or ["build/course"])), 1))
