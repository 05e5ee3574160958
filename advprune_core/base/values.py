"""Values as people give them: ratios, `none`, numpy's numbers, and how a message shows them."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from types import NoneType
from typing import Any, get_args, get_origin

import numpy as np
from pydantic.fields import FieldInfo

_DECIMAL = r"[+-]?(?:[0-9]{1,50}\.?[0-9]{0,50}|\.[0-9]{1,50})"
_NUMBER = re.compile(rf"{_DECIMAL}(?:[eE][+-]?[0-9]{{1,3}})?")
_RATIO = re.compile(rf"({_DECIMAL}) ?/ ?({_DECIMAL})")


def ratio(value: Any) -> Any:
    """Read ``"8/255"`` or ``"0.1"`` as the number it stands for; leave what is no text to pydantic."""
    if not isinstance(value, str):
        return value
    if _NUMBER.fullmatch(value):
        return float(value)
    parts = _RATIO.fullmatch(value)
    if parts is None or not Fraction(parts[2]):
        raise ValueError(f"{shown(value)} is not a number or a ratio such as '8/255'")
    return float(Fraction(parts[1]) / Fraction(parts[2]))


def as_ratio(value: float) -> str:
    """A length in units of [0, 1] as people give it, to the last digit: ``8/255``, else ``0.125``."""
    texts = (f"{value:g}", f"{255 * value:g}/255")
    return next((text for text in texts if math.isclose(ratio(text), value, rel_tol=1e-12)), repr(float(value)))


def as_meant(value: Any, field: FieldInfo) -> Any:
    """What a field means by a value: Python's numbers for numpy's, a tuple for a list, None for ``none``."""
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if get_origin(field.annotation) is tuple and isinstance(value, list | range):
        return tuple(item.item() if isinstance(item, np.generic) else item for item in value)
    if (
        isinstance(value, str)
        and value.lower() == "none"
        and NoneType in (*get_args(field.annotation), type(field.default))
    ):
        return None
    return value


def some(items: Sequence[Any], limit: int = 10) -> str:
    """The first of `items`, and how many more: ``a, b and 3 more``."""
    more = f" and {len(items) - limit} more" if len(items) > limit else ""
    return ", ".join(map(str, items[:limit])) + more


def shown(value: Any, limit: int = 200) -> str:
    """`value` as a message shows it: its `repr`, cut where it is long."""
    try:
        text = repr(value)
    except (ValueError, RecursionError):  # more digits, or more levels, than Python prints
        return f"this {type(value).__name__}"
    return text if len(text) <= limit else f"{text[:limit]}..."
