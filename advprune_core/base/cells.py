"""What a class or function of a notebook, or of a script, rests on in its other cells: what they define by name."""

from __future__ import annotations

import ast
import inspect
import linecache
import symtable
import sys
import textwrap
from collections.abc import Collection, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

#: Values that are what they look like; others may change while they are used, and stand for their assignment.
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def cells_run() -> list[str]:
    """The source of the cells that were run, in that order, or of the script."""
    main = vars(sys.modules["__main__"])
    cells = main.get("In")
    if isinstance(cells, list):
        return [str(cell) for cell in cells]
    file = main.get("__file__")
    return [Path(file).read_text(encoding="utf-8", errors="replace")] if file and Path(file).is_file() else []


def source_of(thing: Any) -> str:
    """Source of a class or function of a script or a notebook cell, or of all that cell.

    Raises
    ------
    OSError, TypeError
        Where it cannot be found.
    """
    try:
        return textwrap.dedent(inspect.getsource(thing))
    except OSError:
        # A notebook has no file for a class, but its methods know the cell that they come from.
        functions = [value for value in vars(thing).values() if inspect.isfunction(value)]
        cells = dict.fromkeys(function.__code__.co_filename for function in functions)
        text = "".join(line for cell in cells for line in linecache.getlines(cell))
        if not text:
            raise
        return textwrap.dedent(text)


def rested_on(sources: Sequence[tuple[str, str]], *, but: Collection[str]) -> dict[str, str]:
    """What else of ``__main__`` classes or functions of it use, at any distance, by name.

    Parameters
    ----------
    sources : sequence of (str, str)
        The name of each class or function, and its `source_of`.
    but : collection of str
        Names that are imported.

    Returns
    -------
    dict of str
        The source of a function or a class, the `repr` of a plain value, of any other what it was assigned last and
        what was done to it by assignments since.
    """
    main, found = vars(sys.modules["__main__"]), dict[str, str]()
    left = {*but, *(name for name, _ in sources)}
    waiting = {used for name, text in sources for used in _globals(_definition(text, name))} - left
    while waiting:
        name = min(waiting)
        waiting -= {name}
        if name in main and (text := _defined(name, main[name])):
            found[name] = text
            waiting |= _globals(text) - left - set(found)
    return found


def _defined(name: str, value: Any) -> str:
    """What makes a name of ``__main__`` what it is; empty where that is not known."""
    if inspect.isclass(value) or inspect.isfunction(value):
        try:
            return _definition(source_of(value), value.__name__) if value.__module__ == "__main__" else ""
        except (OSError, TypeError):
            return ""
    if isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(isinstance(item, _PLAIN) for item in value)):
        return repr(value)
    made: list[ast.stmt] = []
    for node in (node for cell in cells_run() for node in statements(cell)):
        if name in _targets(node):
            anew = isinstance(node, ast.Assign | ast.AnnAssign) and name in _targets(node, whole=True)
            made = [node] if anew else [*made, node]
    return "\n".join(map(ast.unparse, made))


def _definition(text: str, name: str) -> str:
    """The definition of a class or function within the text of its cell; the text where it is not found."""
    kinds = (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found = [node for node in statements(text) if isinstance(node, kinds) and node.name == name]
    return ast.unparse(found[-1]) if found else text


@lru_cache(maxsize=512)
def _globals(text: str) -> frozenset[str]:
    """Names that a source takes from the module that it is in, and does not set there."""
    try:
        waiting = [symtable.symtable(text, "cell", "exec")]
    except (SyntaxError, ValueError):
        return frozenset()
    names, set_there = set[str](), set[str]()
    while waiting:
        table = waiting.pop()
        waiting += table.get_children()
        for symbol in table.get_symbols():
            if symbol.is_global() or table.get_type() == "module":
                (set_there if symbol.is_assigned() else names).add(symbol.get_name())
    return frozenset(names - set_there)


@lru_cache(maxsize=512)
def statements(text: str) -> list[ast.stmt]:
    """The statements of a cell; none where it is no Python: it may have commands of its notebook in it."""
    try:
        return ast.parse(text).body
    except (SyntaxError, ValueError):
        return []


def _targets(node: ast.stmt, *, whole: bool = False) -> set[str]:
    """Names that an assignment sets, or a part of which: ``a`` of ``a[0] = 1``, unless `whole`."""
    targets: list[ast.expr] = []
    if isinstance(node, ast.Assign):
        targets = node.targets
    elif isinstance(node, ast.AnnAssign | ast.AugAssign):
        targets = [node.target]
    names = [name for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)]
    return {name.id for name in names if not whole or isinstance(name.ctx, ast.Store)}
