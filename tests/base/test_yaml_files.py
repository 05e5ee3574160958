"""YAML by the core rules of 1.2: what a text means, and what is refused with its line."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from advprune_core.base.settings import ConfigError
from advprune_core.base.yaml_files import DEEPEST, LARGEST, parse_yaml, read_yaml

#: Section 10.3.2 of the specification, and what version 1.1 makes something else of.
MEANT: list[tuple[str, Any]] = [
    ("010", 10),
    ("0o10", 8),
    ("0xff", 255),
    ("-7", -7),
    ("+7", 7),
    ("08", 8),
    ("12:30", "12:30"),
    ("190:20:30", "190:20:30"),
    ("1_0", "1_0"),
    ("1_0.5", "1_0.5"),
    ("0b11", "0b11"),
    ("-0o10", "-0o10"),
    ("１０", "１０"),
    ("0.", 0.0),
    (".5", 0.5),
    ("1e3", 1000.0),
    ("12e03", 12000.0),
    ("-2E+05", -200000.0),
    (".inf", math.inf),
    ("-.Inf", -math.inf),
    ("inf", "inf"),
    ("nan", "nan"),
    ("yes", "yes"),
    ("no", "no"),
    ("on", "on"),
    ("off", "off"),
    ("y", "y"),
    ("N", "N"),
    ("true", True),
    ("FALSE", False),
    ("null", None),
    ("~", None),
    ("", None),
    ("none", "none"),
    ("2026-11-26", "2026-11-26"),
    ("2026-11-26 10:00:00", "2026-11-26 10:00:00"),
    ("=", "="),
    ("{<<: {a: 1}}", {"<<": {"a": 1}}),
    ("'010'", "010"),
    ("{'1': 2, yes: 3}", {"1": 2, "yes": 3}),
    ("&a [1]", [1]),
    ("\ufeffa: 1", {"a": 1}),
    ("--- 5\n...\n", 5),
]


@pytest.mark.parametrize(("text", "value"), MEANT)
def test_what_a_text_means(text: str, value: Any) -> None:
    found = parse_yaml(text, what="it")
    assert found == value
    assert type(found) is type(value)


def test_not_a_number() -> None:
    assert math.isnan(parse_yaml(".nan", what="it"))


#: Text, line, and what is said of it.
REFUSED: dict[str, tuple[str, int, str]] = {
    "duplicate keys": ("a: 1\nb: 2\na: 3", 3, "the key 'a' stands twice"),
    "duplicate keys within": ("a:\n  b: 1\n  'b': 1", 3, "the key 'b' stands twice"),
    "a number for a key": ("a: 1\n2: 3", 2, "the key '2' is not a name"),
    "null for a key": ("~: 3", 1, "the key '~' is not a name"),
    "a list for a key": ("? [a, b]\n: 3", 1, "the key 'a list or mapping' is not a name"),
    "an alias": ("a: &x 1\nb: *x", 2, r"the alias \*x is not allowed"),
    "an alias for a key": ("&x a: 1\n*x : 2", 2, r"the alias \*x is not allowed"),
    "laughs": ("a: &a [1, 1]\nb: &b [*a, *a]\nc: [*b, *b]", 2, r"the alias \*a is not allowed"),
    "itself": ("&a [*a]", 1, r"the alias \*a is not allowed"),
    "a tag of Python": ("x: 1\ny: !!python/object/apply:os.system [ls]", 2, "the tag .* is not allowed"),
    "a tag of one's own": ("!mine 3", 1, "the tag !mine is not allowed"),
    "a tag of YAML": ("!!int three", 1, "the tag .* is not allowed"),
    "several documents": ("a: 1\n---\nb: 2", 2, "another document"),
    "a tab": ("a:\n\tb: 1", 2, "cannot start any token"),
    "an open bracket": ("a: [1,\n2", 2, "expected"),
    "an open quote": ("a: 'b", 1, "end of stream"),
    "bad indentation": ("a: 1\n  b: 2", 2, "not allowed here"),
    "deep lists": ("[" * 5000, 1, f"more than {DEEPEST} deep"),
    "deep mappings": ("{a: " * 500, 1, f"more than {DEEPEST} deep"),
    "deep blocks": ("\n".join(" " * i + "a:" for i in range(200)), DEEPEST + 1, f"more than {DEEPEST} deep"),
    "digits": ("a: 1\nb: " + "9" * 5000, 2, "too many digits"),
    "a null character": ("a: 1\nb: \0", 2, r"'\\x00' is not allowed"),
    "an escaped null character": ('a: 1\nb: "x\\0"', 2, r"'\\x00' is not allowed"),
    "an escaped half": ('a: "\\ud800"', 1, r"'\\ud800' is not allowed"),
    "an escaped half of a key": ('"\\ud800": 1', 1, r"'\\ud800' is not allowed"),
    "half a character": ("a: \udcff", 1, r"'\\udcff' is not allowed"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_is_named_with_its_line(case: str) -> None:
    text, line, message = REFUSED[case]
    with pytest.raises(ConfigError, match=f"^the thing cannot be read: line {line}: .*{message}"):
        parse_yaml(text, what="the thing")


def test_depth_that_is_allowed() -> None:
    assert parse_yaml("[" * DEEPEST + "]" * DEEPEST, what="it") is not None


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("größe: 1\n".encode(), None),
        (b"\xef\xbb\xbfa: 1", None),
        (b"a: 1\r\nb: 2\r\n", None),
        ("a: 1\ngröße: 1".encode("latin-1"), "line 2: it is not UTF-8"),
        ("a: 1".encode("utf-16"), "line 1: it is not UTF-8"),
        (b"#" * (LARGEST + 1), "more than 1,000,000 bytes"),
        (b"\x80\x00\xff", "not UTF-8"),
    ],
)
def test_files(content: bytes, message: str | None, tmp_path: Path) -> None:
    path = tmp_path / "p.yaml"
    path.write_bytes(content)
    if message is None:
        assert set(read_yaml(path, what="p")) in ({"größe"}, {"a"}, {"a", "b"})
    else:
        with pytest.raises(ConfigError, match=f"p cannot be read: .*{message}"):
            read_yaml(path, what="p")


def test_what_is_no_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing.yaml", tmp_path / "a\0b"):
        with pytest.raises(ConfigError, match=r"^p cannot be read: "):
            read_yaml(path, what="p")


TEXT = st.text(st.characters(min_codepoint=1, max_codepoint=0xFFFF, exclude_categories=["Cs"]))
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**20), 10**20)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@given(JSON)  # within the basic plane: JSON escapes what lies beyond in two halves, YAML does not
@settings(derandomize=True, max_examples=60)
def test_json_is_yaml(data: Any) -> None:
    """The core schema reads JSON as JSON does; an oracle that knows nothing of this package."""
    text = json.dumps(data)
    assert parse_yaml(text, what="it") == json.loads(text)
