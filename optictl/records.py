"""Typed records from JSON that another program wrote: a file, the guard's answer, Ansible's event.

A record is a frozen dataclass. Fields that it does not name are ignored; a field without a default
that is missing, or one of another type, makes the whole record invalid.
"""

from __future__ import annotations

import time
from functools import cache
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

T = TypeVar("T")


def utc_now() -> str:
    """The time as records have it, in UTC, such as 2026-11-28T09:30:00Z."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def parse(kind: type[T], data: object) -> T:
    """The record in what `json.loads` returned.

    Raises:
        ValueError: it is no such record; the message names the first wrong field.
    """
    try:
        record: T = _adapter(kind).validate_python(data)  # type: ignore[arg-type]
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        field = ".".join(map(str, first["loc"])) or "the whole"
        raise ValueError(f"{field}: {first['msg']}") from None
    return record
