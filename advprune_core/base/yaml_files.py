"""YAML as people mean it: the core rules of version 1.2, and nothing that a profile has no use for.

PyYAML reads version 1.1, where ``010`` is 8, ``12:30`` is 750, ``1_0`` is 10, ``no`` is false, and of two
equal keys the last one counts in silence. Here ``010`` is 10, ``0o10`` is 8, and the others are plain words,
which a number's field refuses. Equal keys, keys that are no words, aliases, tags and deep nesting are errors.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode

from advprune_core.base.settings import ConfigError
from advprune_core.base.values import shown

#: Bytes of a file, and levels of lists and mappings, beyond which nobody wrote it by hand.
LARGEST, DEEPEST = 1_000_000, 20


class _Core(yaml.SafeLoader):
    """PyYAML's safe loader with the core schema of YAML 1.2 (section 10.3.2)."""

    yaml_implicit_resolvers: dict[str, Any] = {}
    depth = 0

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        """A node, unless it has a tag, is an alias, or lies too deep."""
        event = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            raise _error(event, f"the alias *{event.anchor} is not allowed: write the value again")
        if getattr(event, "tag", None) is not None:
            raise _error(event, f"the tag {event.tag} is not allowed: plain values need none")
        if self.depth > DEEPEST:
            raise _error(event, f"lists and mappings are nested more than {DEEPEST} deep")
        self.depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> dict[Any, Any]:
        """A mapping whose keys are words, each once."""
        seen = set()
        for key, _ in node.value:
            if not (isinstance(key, ScalarNode) and key.tag == "tag:yaml.org,2002:str"):
                what = key.value if isinstance(key, ScalarNode) else "a list or mapping"
                raise _error(key, f"the key {shown(what)} is not a name: put it in quotes if it is meant as one")
            if key.value in seen:
                raise _error(key, f"the key {shown(key.value)} stands twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: ScalarNode | MappingNode) -> Any:
        """A text without what no file and no path can hold, though an escape can name it."""
        if isinstance(node, ScalarNode) and (wrong := re.search("[\0\ud800-\udfff]", node.value)):
            raise _error(node, f"the character {wrong[0]!a} is not allowed")
        return super().construct_scalar(node)

    def whole(self, node: ScalarNode) -> int:
        """``10``, ``010`` (ten), ``0o12`` or ``0xa``."""
        base = {"0o": 8, "0x": 16}.get(node.value[:2], 10)
        try:
            return int(node.value, base)
        except ValueError:
            raise _error(node, "a number has too many digits") from None


def _error(place: Any, problem: str) -> yaml.MarkedYAMLError:
    return yaml.MarkedYAMLError(problem=problem, problem_mark=place.start_mark)


_Core.add_constructor("tag:yaml.org,2002:int", _Core.whole)
_Core.add_constructor(
    "tag:yaml.org,2002:float",
    lambda loader, node: float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan")),
)
for _tag, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
):
    _Core.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(rf"(?:{_pattern})\Z"), _first)


def parse_yaml(text: str, *, what: str) -> Any:
    """The value that a text stands for.

    Parameters
    ----------
    text : str
        One YAML document.
    what : str
        What was to be read, for the message: ``"the profile digits.yaml"``.

    Raises
    ------
    ConfigError
        What YAML does not allow, or this module does not; the message names the line.
    """
    try:
        return yaml.load(text, _Core)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f"line {mark.line + 1}: " if mark is not None else ""
        reason = ", ".join(part for part in (error.context, error.problem) if part)
    except yaml.reader.ReaderError as error:
        line = f"line {text.count(chr(10), 0, max(error.position, 0)) + 1}: "
        reason = f"the character {chr(error.character)!a} is not allowed"
    raise ConfigError(f"{what} cannot be read: {line}{reason}")


def read_yaml(path: str | Path, *, what: str) -> Any:
    """The value in a file; see `parse_yaml`.

    Raises
    ------
    ConfigError
        A file that cannot be read, is too large or is not UTF-8, and what `parse_yaml` refuses.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(LARGEST + 1)
    except (OSError, ValueError) as error:  # ValueError: a path with a null byte
        raise ConfigError(f"{what} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > LARGEST:
        raise ConfigError(f"{what} cannot be read: it has more than {LARGEST:,} bytes")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError(f"{what} cannot be read: line {line}: it is not UTF-8; save it with that encoding") from None
    return parse_yaml(text, what=what)
