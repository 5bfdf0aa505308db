"""Write docs/faults.md and the README's table from tests/system/faults: `uv run python -m scripts.faults_page`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
PAGE, README = _ROOT / "docs/faults.md", _ROOT / "README.md"
#: fault -> way of looking -> whether it saw that something was wrong; written by the tests with OPTICTL_RECORD_FAULTS=1.
SEEN = _ROOT / "testing/faults/seen.json"
WAYS = ("systemctl is-active", "curl /health", "curl /v1/models", "LiteLLM /health")
_HEAD = """\
# The faults

Each of these was made on a healthy deployment under a booted systemd, behind a real LiteLLM and in front of it, by
`tests/system/faults`. `check` named the cause (and nothing else as one), and what it printed mended it. The other columns:
whether somebody who looks in that way saw that anything was wrong. Written by `uv run python -m scripts.faults_page`.
"""
_BEGIN, _END = "<!-- faults: begin -->\n", "<!-- faults: end -->\n"


def seen() -> dict[str, dict[str, bool]]:
    """What the tests have recorded."""
    recorded: dict[str, dict[str, bool]] = json.loads(SEEN.read_text(encoding="utf-8"))
    return recorded


def _table(head: tuple[str, ...], lines: list[list[str]]) -> str:
    return (
        "\n".join(
            "| " + " | ".join(cells) + " |" for cells in [list(head), ["---"] * len(head), *lines]
        )
        + "\n"
    )


def page(faults: list[Any], found: dict[str, dict[str, bool]]) -> str:
    """Every fault, what `check` called it, and who else saw it."""
    lines = [
        [
            f.family,
            f.name.replace("|", "\\|"),
            f"`{f.id}`",
            *("yes" if found[f.key][way] else "-" for way in WAYS),
        ]
        for f in faults
    ]
    return f"{_HEAD}\n{_table(('', 'fault', 'check', *WAYS), lines)}"


def section(faults: list[Any], found: dict[str, dict[str, bool]]) -> str:
    """The README's table: how many faults of each family were seen in each way."""

    def row(name: str, those: list[Any]) -> list[str]:
        return [
            name,
            str(len(those)),
            *(str(sum(found[f.key][way] for f in those)) for way in WAYS),
        ]

    families = list(dict.fromkeys(f.family for f in faults))
    lines = [row(family, [f for f in faults if f.family == family]) for family in families]
    return _table(
        ("faults", "`check`", *(f"`{way}`" for way in WAYS)), [*lines, row("all", faults)]
    )


def readme(text: str, faults: list[Any], found: dict[str, dict[str, bool]]) -> str:
    """The README with that table in its place."""
    before, _, rest = text.partition(_BEGIN)
    _, _, after = rest.partition(_END)
    return f"{before}{_BEGIN}{section(faults, found)}{_END}{after}"


def main() -> None:
    """Write both."""
    from testing.faults.rows import FAULTS

    PAGE.write_text(page(FAULTS, seen()), encoding="utf-8")
    README.write_text(readme(README.read_text(encoding="utf-8"), FAULTS, seen()), encoding="utf-8")


if __name__ == "__main__":
    main()
