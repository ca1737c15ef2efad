"""Read a JSON object from outside so that every reader would read the same in it."""

from __future__ import annotations

import json
import math
from typing import Any


def parse_object(text: bytes | str) -> dict[str, Any]:
    """Parse *text*, a JSON object in UTF-8; raises ValueError.

    Names that come twice, NaN, infinities, numbers that overflow to one, and halves of characters are refused:
    parsers disagree about them, so one part of a system would check another value than the next part uses
    (RFC 8259, sections 4 and 8.2; RFC 7519, section 4). The caller bounds the size.
    """
    text = text if isinstance(text, str) else text.decode()
    try:
        value = json.loads(
            text,
            object_pairs_hook=_without_duplicates,
            parse_constant=_refuse_constant,
            parse_float=_finite,
        )
        if "\\u" in text:
            # Half a surrogate pair is no text: it raises wherever it is encoded later.
            json.dumps(value, ensure_ascii=False).encode()
    except RecursionError:
        message = "nested too deeply"
        raise ValueError(message) from None
    if not isinstance(value, dict):
        message = "not a JSON object"
        raise ValueError(message)  # noqa: TRY004 - one kind of error for everything that is wrong with a text
    return value


def _without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        message = "a name comes twice"
        raise ValueError(message)
    return values


def _refuse_constant(text: str) -> float:
    message = f"{text} is not JSON"
    raise ValueError(message)


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        message = "a number is too large"
        raise ValueError(message)
    return number
