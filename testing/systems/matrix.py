"""docs/reference/systems.md, the table of systems of the walk, from the rows in rows.json."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import optictl
from testing.support import ROOT
from testing.systems import trees, walk

ROWS = ROOT / "testing/systems/rows.json"
PAGE = ROOT / "docs/reference/systems.md"
SUITES = ("bullseye", "bookworm", "trixie", "sid")
#: Which Python: the system's own, or a further one of this minor version.
OWN = "own"
PYTHONS = (OWN, "3.10", "3.11", "3.12", "3.13", "3.14")
_SYSTEMS = {
    "bullseye": "Debian 11",
    "bookworm": "Debian 12",
    "trixie": "Debian 13",
    "sid": "Debian unstable",
}
_HEAD = """\
# Systems

Each row is one walk through the [quick start](../quick-start.md), from its first command to
`uninstall --purge`, on a system that debootstrap made and that booted with its systemd. "Python
asked for" is given to uv and to optictl with `--python`; "own" means that no option is given and
the tools find the system's Python. All systems share the kernel of the machine that boots them. The
architecture is x86_64.

`uv run python -m testing.systems` makes the rows (as root, on a Debian). `--suite trixie
--python 3.12` repeats some rows and keeps the others.

"""


@dataclass(frozen=True)
class Row:
    """One walk. `why` is "" if it was taken, else why it was not; `seconds` is how long it took."""

    suite: str
    asked: str
    date: str = ""
    code: str = ""
    systemd: str = ""
    kernel: str = ""
    optictl: str = ""
    release: str = ""
    seconds: float = 0.0
    outcomes: tuple[walk.Outcome, ...] = ()
    why: str = ""


def not_run(suite: str, asked: str, why: str) -> Row:
    """The row of a walk that could not begin."""
    return Row(suite, asked, date=_today(), why=why)


def _today() -> str:
    return time.strftime("%Y-%m-%d", time.gmtime())


def _code() -> str:
    """optictl's version, and the commit it was taken from."""
    said = walk.outside("git", "-C", str(ROOT), "describe", "--always", "--dirty")
    return f"{optictl.__version__} ({said or 'no commit known'})"


def interpreter(asked: str) -> Path | None:
    """A further interpreter of this machine, by its minor version."""
    path = walk.INTERPRETERS / asked / "bin" / f"python{asked}"
    return path if path.is_file() else None


def take(suite: str, asked: str, say: Callable[[str], None]) -> Row:
    """Take one walk, and say how each step ended."""
    python = None if asked == OWN else interpreter(asked)
    if asked != OWN and python is None:
        return not_run(
            suite, asked, f"this machine has no CPython {asked} below {walk.INTERPRETERS}"
        )
    try:
        tree = trees.tree(suite)
    except trees.NoTree as error:
        return not_run(suite, asked, str(error))
    begun = time.monotonic()
    with walk.begun(suite, tree, walk.Pythons(python, python)) as system:
        if why := system.unfit():
            return not_run(suite, asked, why)
        outcomes = []
        for outcome in walk.take(system):
            say(
                f"{suite} {asked}: {outcome.step}: "
                f"{outcome.problem or 'passed'} ({outcome.seconds:.1f} s)"
            )
            outcomes.append(outcome)
        return Row(
            suite=suite,
            asked=asked,
            date=_today(),
            code=_code(),
            systemd=system.systemd(),
            kernel=system.kernel(),
            optictl=system.learnt.optictl,
            release=system.learnt.release,
            seconds=round(time.monotonic() - begun, 1),
            outcomes=tuple(outcomes),
        )


def _order(row: Row) -> tuple[int, int]:
    return SUITES.index(row.suite), PYTHONS.index(row.asked)


def merge(rows: Iterable[Row], newer: Iterable[Row]) -> list[Row]:
    """The rows in the page's order; a newer row of the same system and Python replaces an older."""
    return sorted({(row.suite, row.asked): row for row in (*rows, *newer)}.values(), key=_order)


def _cells(row: Row, notes: list[str]) -> Iterator[str]:
    """The cells of the steps; what failed is told in `notes`, which grows."""
    by_name = {outcome.step: outcome.problem for outcome in row.outcomes}
    for step in walk.STEPS:
        problem = by_name.get(step.name, walk.NOT_RUN)
        if problem.startswith(walk.NOT_RUN):
            yield problem
        elif problem:
            notes.append(problem)
            yield f"failed [{len(notes)}]"
        else:
            yield "passed"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def page(rows: Iterable[Row]) -> str:
    """The text of the page."""
    notes: list[str] = []
    head = ["Suite", "System", "systemd", "Kernel", "Python asked for", "optictl on", "releases on"]
    head += [*(step.name for step in walk.STEPS), "Took", "Date", "optictl"]
    lines = [_line(head), _line(["---"] * len(head))]
    for row in rows:
        facts = [
            row.suite,
            _SYSTEMS[row.suite],
            row.systemd,
            row.kernel,
            row.asked,
            row.optictl,
            row.release,
        ]
        if row.why:
            steps, took = [f"{walk.NOT_RUN}: {row.why}", *[""] * (len(walk.STEPS) - 1)], ""
        else:
            steps, took = list(_cells(row, notes)), f"{row.seconds:.0f} s"
        lines.append(_line([*facts, *steps, took, row.date, row.code]))
    steps = [f"- `{step.name}`: {step.says}" for step in walk.STEPS]
    text = _HEAD + "\n".join(lines) + "\n\n## Steps\n\n" + "\n".join(steps) + "\n"
    if notes:
        text += "\n## Failed\n"
        for number, note in enumerate(notes, 1):
            text += (
                f"\n[{number}]\n\n"
                + "\n".join(f"    {line}".rstrip() for line in note.splitlines())
                + "\n"
            )
    return text


def read() -> list[Row]:
    """The rows of earlier runs."""
    if not ROWS.exists():
        return []
    return [
        Row(**{**row, "outcomes": tuple(walk.Outcome(**outcome) for outcome in row["outcomes"])})
        for row in json.loads(ROWS.read_text())
    ]


def write(rows: Sequence[Row]) -> None:
    """Keep the rows, and write the page."""
    ROWS.write_text(json.dumps([dataclasses.asdict(row) for row in rows], indent=1) + "\n")
    PAGE.write_text(page(rows))
