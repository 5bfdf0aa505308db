"""Entry point: `python -I RELEASE/guard --host ... --optillm-api-key @FILE`.

A directory that runs as a program has no package, and relative imports fail in it. This module
puts the parent directory on `sys.path` instead. `guard` is then an ordinary package; the release
directory contains nothing else to import.
"""

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parent.parent)

from guard.serve import main  # noqa: E402  (the line above makes it importable)

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
