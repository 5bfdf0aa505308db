"""Write optictl/guard/verified.py: the texts of OptiLLM with which the guard's tests passed.

    uv run python -m scripts.verified    # after a version has passed all of tests/integration/guard

It downloads the wheel of each version, and needs no other package.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from optictl.guard import fingerprints
from optictl.host import uv

FILE = Path(__file__).resolve().parent.parent / "optictl/guard/verified.py"
#: The versions with which the guard's tests passed, the oldest first.
VERSIONS = ("0.3.12", "0.3.13", "0.3.22", "0.4.0")
#: The strategies whose files count.
STRATEGIES = (
    "bon",
    "cepo",
    "cot_reflection",
    "deepthink",
    "genselect",
    "leap",
    "majority_voting",
    "mars",
    "mcts",
    "moa",
    "none",
    "plansearch",
    "pvg",
    "re2",
    "rstar",
    "rto",
    "self_consistency",
    "z3",
)
_HEAD = '''"""The texts of OptiLLM with which the guard's tests passed, in {versions}.

Written by `python -m scripts.verified`; see `fingerprints`.
"""

from __future__ import annotations

#: part of OptiLLM -> fingerprints, the oldest version first
VERIFIED: dict[str, tuple[str, ...]] = {{
{rows}
}}
'''


def text(parts: Sequence[dict[str, str]]) -> str:
    """The module, from the fingerprints of each version: part -> digest. Pure."""
    rows = []
    for part in sorted({part for version in parts for part in version}):
        digests = dict.fromkeys(version[part] for version in parts if version.get(part))
        quoted = ", ".join(f'"{digest}"' for digest in digests)
        rows.append(f'    "{part}": ({quoted}{"," if len(digests) == 1 else ""}),')
    versions = f"{', '.join(VERSIONS[:-1])} and {VERSIONS[-1]}"
    return _HEAD.format(versions=versions, rows="\n".join(rows))


def written() -> str:
    """The module as it must be. Downloads the wheels."""
    parts = []
    for version in VERSIONS:
        with uv.sources(f"optillm=={version}") as packages:
            parts.append(fingerprints.fingerprints(packages, STRATEGIES))
    return text(parts)


def main() -> None:
    """Write the module."""
    FILE.write_text(written(), encoding="utf-8")
    print(f"wrote {FILE}")


if __name__ == "__main__":
    main()
