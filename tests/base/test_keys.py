"""Keys: equal content has one key, in any order; what JSON cannot say has none."""

from __future__ import annotations

import hashlib
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from advprune_core.base.keys import content_key, json_data

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
DATA = st.dictionaries(st.text(), VALUES, max_size=5)


def test_a_key_is_the_sha256_of_canonical_json() -> None:
    text = '{"a":[1,2.5,null],"b":{"c":true}}'
    assert content_key({"b": {"c": True}, "a": (1, 2.5, None)}) == hashlib.sha256(text.encode()).hexdigest()[:16]


@given(data=DATA)
def test_the_order_of_names_does_not_count(data: dict[str, Any]) -> None:
    assert content_key(dict(reversed(data.items()))) == content_key(data)


@given(data=DATA)
def test_a_key_survives_the_disk(data: dict[str, Any]) -> None:
    assert content_key(json_data(data)) == content_key(data)


@given(one=DATA, other=DATA)
def test_other_content_has_another_key(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert (content_key(one) == content_key(other)) == (repr(_ordered(one)) == repr(_ordered(other)))


def _ordered(value: object) -> object:
    if isinstance(value, dict):
        return "names", sorted((name, _ordered(each)) for name, each in value.items())
    return [_ordered(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_refused(value: float) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        content_key({"lr": value})
    with pytest.raises(ValueError, match="JSON compliant"):
        json_data({"lr": [value]})
