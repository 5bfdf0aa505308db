"""Entry point: `python -I RELEASE/guard --host ... --optillm-api-key @FILE`.

A directory run as a program has no package, so relative imports would fail: its
place on `sys.path` is handed to the parent, which makes `guard` an ordinary package
(the release directory holds nothing else that could be imported).
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from guard.serve import main  # noqa: E402  (the line above makes it importable)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
