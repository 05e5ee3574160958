"""What somebody's own code is: whose a module is, and a hash of its source, so that an edit is another run."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import inspect
import site
import sys
import sysconfig
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from advprune_core.base.cells import cells_run, rested_on, source_of, statements
from advprune_core.base.settings import ConfigError

#: Attribute of an own class or function with the hash of its source.
_SOURCE = "__advprune_source__"


def is_installed(module: str) -> bool:
    """Whether a module is of this package or of one that was installed, rather than one's own."""
    file = _file(module)
    return module != "__main__" and file is not None and _is_installed(file)


def is_installed_file(name: str) -> bool:
    """The same of the file that a line of a traceback is of; one of a cell is one's own."""
    standard = Path(name).is_relative_to(sysconfig.get_path("stdlib"))
    return Path(name).is_absolute() and (standard or _is_installed(Path(name)))


@lru_cache(maxsize=4096)
def _is_installed(file: Path) -> bool:
    places = [Path(sysconfig.get_path(name)) for name in ("purelib", "platlib")] + [Path(__file__).parents[1]]
    places += [Path(place) for place in (*site.getsitepackages(), site.getusersitepackages())]
    return any(file.resolve().is_relative_to(place.resolve()) for place in places)


def source_hash(thing: Any) -> str:
    """Hash of the source text of a user's own class or function, with the files that it rests on.

    These are the file that it is in and what of the user's own files this imports, and these in turn. In a notebook or
    a script it is the class and its own bases, what of other cells they use (`rested_on`), and the own files that the
    names in all these come from. What a script or a notebook defines travels to workers by value, without its source:
    the hash stands on it and goes along.

    Raises
    ------
    ConfigError
        If the source cannot be found, because then an edit could not be told from the original.
    """
    known: str | None = getattr(thing, "__dict__", {}).get(_SOURCE)  # its own, not that of a base
    try:
        if known is not None and thing.__qualname__.partition(".")[0] not in vars(sys.modules[thing.__module__]):
            return known  # a worker, which has it by value
        if thing.__module__ != "__main__":
            text = inspect.getsource(sys.modules[thing.__module__])
            imported = _imports(text, thing.__module__)
        else:
            bases = [base for base in getattr(thing, "__mro__", [thing]) if base.__module__ == "__main__"]
            own = [(base.__name__, source_of(base)) for base in bases]
            bound = {name for cell in cells_run() for name in _bound(cell, "__main__")}
            rests = rested_on(own, but=bound)
            text = "\n".join(source for _, source in own)
            imported = frozenset[str]().union(*map(_origins, [text, *rests.values()]))
            text = "\n".join([text, *(f"{name}: {source}" for name, source in sorted(rests.items()))])
        digest = hashlib.sha256(text.encode())
        for name, more in sorted(_reached(imported, known={thing.__module__}).items()):
            digest.update(f"\n{name}\n{more}".encode())
        found = digest.hexdigest()[:16]
        setattr(thing, _SOURCE, found)
        return found
    except (OSError, TypeError, KeyError, AttributeError):
        if known is not None:
            return known
        raise ConfigError(f"the source of {thing!r} cannot be read; define it in a file or a notebook cell") from None


def _reached(modules: frozenset[str], *, known: set[str]) -> dict[str, str]:
    """The source of one's own files among modules, and of those that these import, by their names."""
    found: dict[str, str] = {}
    waiting = modules - known
    while waiting:
        name = min(waiting)
        waiting -= {name}
        file = _file(name)
        if file is None or file.suffix != ".py" or name.partition(".")[0] in sys.stdlib_module_names:
            continue
        if not _is_installed(file):
            found[name] = _text(name, file)
            waiting |= _imports(found[name], name) - known - set(found)
    return found


@lru_cache(maxsize=512)
def _imports(text: str, module: str) -> frozenset[str]:
    """Names of modules that a module's source may import, with the packages that they are in."""
    names = {name for names in _bound(text, module).values() for name in names}
    return frozenset(whole for name in names for whole in _with_packages(name))


@lru_cache(maxsize=512)
def _bound(text: str, module: str) -> dict[str, set[str]]:
    """What modules the names come from that a source's imports bind: of ``from a import b`` both ``a`` and ``a.b``."""
    file = _file(module)
    package = module if file is not None and file.name == "__init__.py" else module.rpartition(".")[0]
    found: dict[str, set[str]] = {}
    for node in _nodes(text):
        if isinstance(node, ast.Import):
            for alias in node.names:
                found.setdefault(alias.asname or alias.name.partition(".")[0], set()).add(alias.name)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            home = ".".join(filter(None, [*above, node.module]))
            for alias in node.names:
                found.setdefault(alias.asname or alias.name, set()).update({home, f"{home}.{alias.name}"})
    return found


def _with_packages(name: str) -> Iterator[str]:
    """``a``, ``a.b`` and ``a.b.c`` of the last: to import it runs them all."""
    parts = name.split(".")
    yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1) if all(parts[:count]))


def _origins(text: str) -> frozenset[str]:
    """Modules that the names in the source of a script's or a notebook's class come from."""
    main = vars(sys.modules["__main__"])
    used = {node.id for node in _nodes(text) if isinstance(node, ast.Name)}
    homes = {str(getattr(main.get(name), "__module__", "")) for name in used} - {"", "__main__"}
    for cell in cells_run():
        homes |= {home for name, modules in _bound(cell, "__main__").items() if name in used for home in modules}
    return _imports(text, "__main__") | {whole for home in homes for whole in _with_packages(home)}


def _nodes(text: str) -> Iterator[ast.AST]:
    """All of a source that is Python: a cell may have commands of its notebook in it."""
    for statement in statements(text):
        yield from ast.walk(statement)


def _text(name: str, file: Path) -> str:
    try:
        return importlib.util.decode_source(file.read_bytes())
    except (OSError, SyntaxError, UnicodeDecodeError):  # in an archive, say
        return inspect.getsource(sys.modules[name])


def _file(module: str) -> Path | None:
    """The file of a module, if it is imported, or can be without importing anything."""
    if module in sys.modules:
        file = getattr(sys.modules[module], "__file__", None)
        return None if file is None else Path(file)
    package, _, leaf = module.rpartition(".")
    if package:
        home = _file(package)
        if home is None or home.name != "__init__.py":
            return None
        options = home.parent / f"{leaf}.py", home.parent / leaf / "__init__.py"
        return next((path for path in options if path.is_file()), None)
    try:
        spec = importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.has_location and spec.origin is not None else None
