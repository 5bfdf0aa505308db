"""Take the walk on every system and Python, or on some, and write docs/reference/systems.md."""

from __future__ import annotations

import argparse
import sys

from testing.systems import matrix, trees


def main() -> int:
    """The exit code: 1 if a step failed."""
    parser = argparse.ArgumentParser(prog="python -m testing.systems", description=__doc__)
    parser.add_argument(
        "--suite", action="append", choices=matrix.SUITES, help="only this Debian; may be repeated"
    )
    parser.add_argument(
        "--python",
        action="append",
        choices=matrix.PYTHONS,
        help="only this Python; may be repeated",
    )
    parser.add_argument(
        "--fresh",
        action="store_true",
        help="make the root trees again from what the mirror holds now",
    )
    options = parser.parse_args()
    failed = False
    for suite in options.suite or matrix.SUITES:
        if options.fresh:
            trees.forget(suite)
        for asked in options.python or matrix.PYTHONS:
            row = matrix.take(suite, asked, lambda text: print(text, flush=True))
            print(f"{suite} {asked}: {row.why or f'{row.seconds:.0f} s'}", flush=True)
            failed |= any(outcome.problem for outcome in row.outcomes)
            # after each: a run that is interrupted keeps what it has seen
            matrix.write(matrix.merge(matrix.read(), [row]))
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
