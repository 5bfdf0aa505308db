"""docs/reference/effect-codes.md from the guard's table; `python -m scripts.docs` writes it."""

from __future__ import annotations

from pathlib import Path

from optictl.guard.judgement import CODES, Code, Level

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/effect-codes.md"
_HEAD = """\
# Effect codes

`python -m scripts.docs` writes this page from the code.

A strategy can run and do no good, with status 200. The guard judges each request from the upstream
calls that it saw. A code says what kept the strategy from its effect. Codes never change.

They are in the header `x-optillm-degraded`, the log, the trace, the
[metric](metrics.md) `optillm_degraded_total`, and in what `smoke`, `check`, `compare`, `top`,
`trace` and `logs` show. `effect` in [`optictl.yaml`](configuration.md#effect) has the fixes.
"""
_LEVELS: dict[Level, str] = {
    "degraded": "The result is no better than one plain call. `smoke` fails.",
    "weak": "A part of the effect is lost. `smoke` warns.",
}


def _row(name: str, code: Code) -> str:
    fix = code.fix[:1].upper() + code.fix[1:]
    return f"| `{name}` | {code.what}. | {fix}. |"


def page() -> str:
    """The whole page."""
    parts = [_HEAD.rstrip()]
    for level, text in _LEVELS.items():
        rows = [_row(name, code) for name, code in CODES.items() if code.level == level]
        table = "\n".join(["| code | what happened | what helps |", "|---|---|---|", *rows])
        parts += [f"## {level.capitalize()}", text, table]
    return "\n\n".join(parts) + "\n"
