"""docs/reference/checks.md from the checks' texts; `python -m scripts.docs` writes it."""

from __future__ import annotations

import inspect
from pathlib import Path

from optictl.checks import catalog
from optictl.checks.engine import Check

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/checks.md"
_HEAD = """\
# The checks

`python -m scripts.docs` writes this page. `optictl check --explain ID` prints one section of it.

- *Requires*: these checks run first. If one of them fails, this check is skipped and names the
  failed one. `--only` runs them too.
- *Explained by*: if one of these checks fails too, it is the root cause of this failure and is
  shown first.
"""


def _section(check: Check) -> str:
    facts = [f"{check.title}. Expected: {check.expected}."]
    for label, ids in (("Requires", check.requires), ("Explained by", check.explained_by)):
        facts += [f"{label}: {', '.join(f'`{id}`' for id in ids)}."] if ids else []
    text = (inspect.getdoc(check.run) or "").replace("\nWhy: ", "\n\nWhy: ")
    return "\n\n".join([f"## `{check.id}`", *facts, text]) + "\n"


def page() -> str:
    """The whole page."""
    return "\n".join([_HEAD, *map(_section, catalog.all_checks())])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
