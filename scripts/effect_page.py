"""The table of codes in docs/explanation/effect.md, from the guard's own."""

from __future__ import annotations

from pathlib import Path

from optictl.guard.judgement import CODES

PAGE = Path(__file__).resolve().parent.parent / "docs/explanation/effect.md"


def table() -> str:
    """A line for each code: its level, what happened, and what helps."""
    lines = ["| Code | Level | What happened | What helps |", "|---|---|---|---|"]
    for name, code in CODES.items():
        lines.append(
            f"| `{name}` | {code.level} | {_sentence(code.what)} | {_sentence(code.fix)} |"
        )
    return "\n".join(lines)


def _sentence(text: str) -> str:
    return f"{text[0].upper()}{text[1:]}."
