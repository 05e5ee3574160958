"""Keys: the hash of all that a result was made from."""

from __future__ import annotations

import hashlib
import json
from typing import Any


def json_data(data: dict[str, Any]) -> dict[str, Any]:
    """`data` as it comes back from JSON: tuples as lists."""
    copy: dict[str, Any] = json.loads(json.dumps(data, allow_nan=False))
    return copy


def content_key(data: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of canonical JSON."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
