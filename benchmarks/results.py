"""Write RESULTS.md and results.json. A part that did not run keeps its table and its date."""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

from benchmarks.figures import Part

HEAD = ["what", "optictl", "alternative", "optictl / alternative", "expected", "met"]
PREAMBLE = """\
# Benchmarks

Written by `uv run python -m benchmarks`. `results.json` has the values of every run. A figure is
the median (minimum to maximum). The ratio is optictl's median divided by the alternative's, from
the same run of a part. In brackets: the lowest and highest ratio of paired runs, if any. Absolute
figures depend on the machine and its other load; use the ratios.
"""


def machine(python: str) -> dict[str, Any]:
    """Facts about the machine, without its name. `python`: the interpreter under test."""
    return {
        "cores": os.cpu_count(),
        "architecture": platform.machine(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "python_of_optictl": platform.python_version(),
        "python_of_optillm": python,
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "load_average_before": round(os.getloadavg()[0], 1),
    }


def _facts(facts: dict[str, Any]) -> str:
    return (
        f"{facts['date']}; {facts['cores']} cores ({facts['architecture']}), {facts['memory_gib']} "
        "GiB; CPython "
        f"{facts['python_of_optictl']} (optictl), {facts['python_of_optillm']} (OptiLLM, both "
        "sides); "
        f"load average before: {facts['load_average_before']}."
    )


def _table(part: dict[str, Any]) -> str:
    lines = [HEAD, ["---"] * len(HEAD), *part["cells"]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def read(directory: Path) -> dict[str, Any]:
    """The parts of earlier runs. Empty without a file, or with a file in another format."""
    try:
        data = json.loads((directory / "results.json").read_text())
        return dict(data["parts"]) if data["schema"] == 1 else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def entry(title: str, part: Part, facts: dict[str, Any]) -> dict[str, Any]:
    """A part in the format of results.json."""
    return {
        "title": title,
        "machine": facts,
        "notes": part.notes,
        "cells": [row.cells() for row in part.rows],
        "rows": [row.as_dict() for row in part.rows],
    }


def section(part: dict[str, Any]) -> str:
    """A part as Markdown."""
    notes = "\n".join(f"- {note}" for note in part["notes"])
    return f"## {part['title']}\n\n{_facts(part['machine'])}\n\n{_table(part)}\n\n{notes}\n"


def write(directory: Path, parts: dict[str, Any]) -> None:
    """Write both files."""
    (directory / "results.json").write_text(
        json.dumps({"schema": 1, "parts": parts}, indent=1) + "\n"
    )
    (directory / "RESULTS.md").write_text(
        "\n".join([PREAMBLE, *(section(part) for part in parts.values())])
    )
