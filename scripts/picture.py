"""Draw docs/demo.svg, the README's picture: a real run of `optictl demo --once`, recorded by Rich.

uv run scripts/picture.py DIRECTORY     # an empty directory that every user may enter
"""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.terminal_theme import MONOKAI

from optictl.demo import show
from optictl.output.console import Terminal

TARGET = Path(__file__).resolve().parent.parent / "docs" / "demo.svg"


def main() -> int:
    """Run the demonstration, record what it prints, write the picture."""
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    with Path("/dev/null").open("w") as nowhere:
        recording = Console(
            record=True, width=128, file=nowhere, force_terminal=True, highlight=False
        )
        recording.print("[bold cyan]$[/] optictl demo --once")
        code = show.demonstrate(
            Terminal(recording=recording), Path(sys.argv[1]).absolute(), once=True
        )
    TARGET.parent.mkdir(exist_ok=True)
    recording.save_svg(str(TARGET), title="optictl demo --once", theme=MONOKAI)
    print(f"{TARGET.name}: demo ended with {code}")
    return code


if __name__ == "__main__":
    sys.exit(main())
