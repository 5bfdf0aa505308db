"""Write docs/checks.md from the checks' own words: `uv run scripts/checks_page.py`."""

from __future__ import annotations

import inspect
from pathlib import Path

from optictl.checks import catalog
from optictl.checks.engine import Check

PAGE = Path(__file__).resolve().parent.parent / "docs/checks.md"
_HEAD = """\
# The checks

Written by `uv run scripts/checks_page.py` from the checks' own words; `optictl check --explain ID` prints the same.
What a check requires is run before it: where that is red, the check is a skip that names it. What it is a consequence
of explains its failure, and is shown first. `--only` also runs what the named checks presuppose, and tells it where it is
red; then the exit code is 1.
"""


def _section(check: Check) -> str:
    facts = [f"{check.title}. Expected: {check.expected}."]
    for words, ids in (("Presupposes", check.requires), ("A consequence of", check.explained_by)):
        facts += [f"{words}: {', '.join(f'`{id}`' for id in ids)}."] if ids else []
    text = (inspect.getdoc(check.run) or "").replace("\nWhy: ", "\n\nWhy: ")
    return "\n\n".join([f"## `{check.id}`", *facts, text]) + "\n"


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *map(_section, catalog.all_checks())])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
