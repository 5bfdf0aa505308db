"""The JSON envelope: what every command prints with `--output json`. Pure."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from optictl.errors import classes

SCHEMA = 1
_TEXT = {"type": "string"}


def envelope(command: str, results: Sequence[Any], ok: bool, **more: Any) -> dict[str, Any]:
    """The versioned envelope. `more`: further fields of this command."""
    status = "ok" if ok else "failed"
    return {
        "schema": SCHEMA,
        "command": command,
        "status": status,
        "results": list(results),
        **more,
    }


def dump(data: dict[str, Any], indent: int | None = 2) -> str:
    """The envelope as text; on one line with `indent=None`."""
    return json.dumps(data, indent=indent, ensure_ascii=False)


def schema() -> dict[str, Any]:
    """The JSON Schema of the envelope."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "What an optictl command prints with --output json",
        "description": "One envelope on the standard output. optictl check --watch prints one a"
        " round, each on one line. optictl logs and optictl top print one object a line, which"
        " is not an envelope; when they fail, one envelope follows.",
        "type": "object",
        "required": ["schema", "command", "status", "results"],
        "properties": {
            "schema": {"const": SCHEMA},
            "command": {**_TEXT, "description": "Without optictl itself, such as fleet status."},
            "status": {"enum": ["ok", "failed"]},
            "results": {"type": "array", "items": {"type": "object"}},
            "summary": {**_TEXT, "description": "One line: what is wrong and what fixes it."},
            "error": _error_schema(),
        },
        # a failure has a cause: an error, or a result that says so
        "if": {"required": ["error"]},
        "then": {"properties": {"status": {"const": "failed"}}},
    }


def _error_schema() -> dict[str, Any]:
    return {
        "type": "object",
        "description": "Why the command failed. Present only with status failed.",
        "required": ["code", "what", "remedy"],
        "properties": {
            "code": {
                "enum": sorted(error.code for error in classes()),
                "description": "Stable; see docs/reference/error-codes.md.",
            },
            "what": {**_TEXT, "description": "What is wrong, for people."},
            "remedy": {**_TEXT, "description": "The command that fixes it, or an empty string."},
            "problems": {
                "type": "array",
                "items": {"type": "object"},
                "description": "Each problem, where several things are wrong.",
            },
        },
        "additionalProperties": False,
    }
