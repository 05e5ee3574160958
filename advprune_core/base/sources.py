"""What somebody's own code is: whose a module is, and a hash of its source, so that an edit is another run."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import linecache
import site
import sys
import sysconfig
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from advprune_core.base.settings import ConfigError

#: Attribute of an own class or function with the hash of its source.
_SOURCE = "__advprune_source__"


def is_installed(module: str) -> bool:
    """Whether a module is of this package or of one that was installed, rather than one's own."""
    file = _file(module)
    if module == "__main__" or file is None:
        return False
    places = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")] + [Path(__file__).parents[1]]
    places += [Path(place) for place in (*site.getsitepackages(), site.getusersitepackages())]
    return any(file.resolve().is_relative_to(place.resolve()) for place in places)


def source_hash(thing: Any) -> str:
    """Hash of the source text of a user's own class or function, with the files that it rests on.

    These are the file that it is in and what of the user's own files this imports, and these in turn. In a notebook or
    a script it is the class and its own bases, with the own files that the names in these come from. What a script or a
    notebook defines travels to workers by value, without its source: the hash stands on it and goes along.

    Raises
    ------
    ConfigError
        If the source cannot be found, because then an edit could not be told from the original.
    """
    known: str | None = getattr(thing, "__dict__", {}).get(_SOURCE)  # its own, not that of a base
    if known is not None:
        return known
    try:
        if thing.__module__ != "__main__":
            text = inspect.getsource(sys.modules[thing.__module__])
            imported = _imports(text, thing.__module__)
        else:
            own = [base for base in getattr(thing, "__mro__", [thing]) if base.__module__ == "__main__"]
            text = "\n".join(_source(part) for part in own)
            imported = _origins(text)
        digest = hashlib.sha256(text.encode())
        for name, more in sorted(_reached(imported, {thing.__module__}).items()):
            digest.update(f"\n{name}\n{more}".encode())
        found = digest.hexdigest()[:16]
        setattr(thing, _SOURCE, found)
        return found
    except (OSError, TypeError, KeyError, AttributeError):
        raise ConfigError(f"the source of {thing!r} cannot be read; define it in a file or a notebook cell") from None


def _reached(modules: set[str], known: set[str]) -> dict[str, str]:
    """The source of one's own files among modules, and of those that these import, by their names."""
    found: dict[str, str] = {}
    waiting = modules - known
    while waiting:
        name = waiting.pop()
        file = _file(name)
        if file is None or file.suffix != ".py" or name.partition(".")[0] in sys.stdlib_module_names:
            continue
        if is_installed(name) or name in found:
            continue
        found[name] = file.read_text(encoding="utf-8", errors="replace")
        waiting |= _imports(found[name], name) - known - set(found)
    return found


def _imports(text: str, module: str) -> set[str]:
    """Names of modules that a module's source may import: of ``from a import b`` both ``a`` and ``a.b``."""
    file = _file(module)
    package = module if file is not None and file.name == "__init__.py" else module.rpartition(".")[0]
    names = set[str]()
    for node in _nodes(text):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            home = ".".join(filter(None, [*above, node.module]))
            names |= {home, *(f"{home}.{alias.name}" for alias in node.names)}
    return names - {""}


def _origins(text: str) -> set[str]:
    """Modules that the names in the source of a script's or notebook's class come from."""
    main = vars(sys.modules["__main__"])
    used = {node.id for node in _nodes(text) if isinstance(node, ast.Name)}
    values = [main[name] for name in used if name in main]
    return {name for value in values for name in _home(value)} - {"__main__"}


def _nodes(text: str) -> Iterator[ast.AST]:
    """All of a source that is Python: a cell may have commands of its notebook in it."""
    try:
        yield from ast.walk(ast.parse(textwrap.dedent(text)))
    except SyntaxError:
        return


def _home(value: Any) -> Iterator[str]:
    name = value.__name__ if inspect.ismodule(value) else getattr(value, "__module__", None)
    if isinstance(name, str):
        yield name


def _file(module: str) -> Path | None:
    """The file of a module, if it is imported, or can be without importing anything."""
    if module in sys.modules:
        file = getattr(sys.modules[module], "__file__", None)
        return None if file is None else Path(file)
    if "." in module:
        return None
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin is not None else None


def _source(thing: Any) -> str:
    """Source of a class or function of a script or a notebook cell."""
    try:
        return inspect.getsource(thing)
    except OSError:
        # A notebook has no file for a class, but its methods know the cell that they come from.
        functions = [value for value in vars(thing).values() if inspect.isfunction(value)]
        cells = dict.fromkeys(function.__code__.co_filename for function in functions)
        text = "".join(line for cell in cells for line in linecache.getlines(cell))
        if not text:
            raise
        return text
