"""docs/reference/faults.md, from the records of tests/system/faults."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).resolve().parent.parent
PAGE = _ROOT / "docs/reference/faults.md"
#: fault -> probe -> whether it noticed the fault; the tests write it with OPTICTL_RECORD_FAULTS=1.
SEEN = _ROOT / "testing/faults/seen.json"
WAYS = ("systemctl is-active", "curl /health", "curl /v1/models", "LiteLLM /health")
_HEAD = """\
# Faults that `check` finds

Each fault was made on a healthy deployment under a booted systemd, with a real LiteLLM in front of
it and behind it (`tests/system/faults`). In each case `check` named this one cause and no other,
and the command that it printed fixed the fault. The other columns show whether a simpler probe
noticed that anything was wrong:

- `systemctl is-active`: is the unit active?
- `curl /health`: does the proxy answer?
- `curl /v1/models`: does the proxy reach its upstream?
- `LiteLLM /health`: does LiteLLM's own health check of the model pass?

`python -m scripts.docs` writes this page.

## By family
"""


def seen() -> dict[str, dict[str, bool]]:
    """The records of the tests."""
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
    """The whole page."""
    lines = [
        [
            f.family,
            f.name.replace("|", "\\|"),
            f"`{f.id}`",
            *("yes" if found[f.key][way] else "-" for way in WAYS),
        ]
        for f in faults
    ]
    every = _table(("family", "fault", "check", *WAYS), lines)
    return f"{_HEAD}\n{by_family(faults, found)}\n## Every fault\n\n{every}"


def by_family(faults: list[Any], found: dict[str, dict[str, bool]]) -> str:
    """How many faults of each family each probe noticed."""

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


def main() -> None:
    """Write the page."""
    from testing.faults.rows import FAULTS

    PAGE.write_text(page(FAULTS, seen()), encoding="utf-8")


if __name__ == "__main__":
    main()
