"""docs/checks.md is what the checks say of themselves."""

from __future__ import annotations

import runpy
from pathlib import Path

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/checks_page.py"


def test_the_page_is_in_step() -> None:
    """After a change of a check: uv run scripts/checks_page.py"""
    script = runpy.run_path(str(SCRIPT))
    assert script["PAGE"].read_text(encoding="utf-8") == script["page"]()
