"""Write golden/ again after an intended change of a template:

    python -m tests.unit.regenerate_golden

Read the difference before it is committed: it is what every deployment will be given.
"""

from __future__ import annotations

import shutil

from tests.unit.golden_cases import CASES, GOLDEN, artefacts


def main() -> None:
    """Replace every golden file; those of cases that are gone disappear."""
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for name in CASES:
        for path, text in artefacts(name):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
