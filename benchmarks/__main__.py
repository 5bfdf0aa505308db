"""`python -m benchmarks [--no-full] [--output DIR] [NAME...]`

`python -m benchmarks effect` and `python -m benchmarks strategies` have their own options.
"""

from __future__ import annotations

import argparse
import signal
import sys
from pathlib import Path

from benchmarks import check, cli, effect, install, results, serve, start, strategies
from benchmarks.lab import laboratory

PARTS = {"install": install, "start": start, "serve": serve, "cli": cli, "check": check}
#: Those with their own options and page.
PAGES = {"effect": effect.main, "strategies": strategies.main}


def main() -> int:
    """Run the parts, print their tables, and write the results."""
    if sys.argv[1:] and (page := PAGES.get(sys.argv[1])):
        return page(sys.argv[2:])
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=sys.modules["benchmarks"].__doc__
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"parts to run: {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--no-full", action="store_true", help="leave out the full install (7 GB)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path(__file__).parent,
        metavar="DIR",
        help="where the results go",
    )
    options = parser.parse_args()
    if unknown := set(options.names) - PARTS.keys():
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are: {', '.join(PARTS)}")
    # on SIGTERM or SIGHUP, still stop the servers and remove the installations
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda got, _frame: sys.exit(128 + got))
    found = results.read(options.output)
    with laboratory(full=not options.no_full) as lab:
        python = ".".join(map(str, lab.interpreter.version))
        for name, part in PARTS.items():
            if options.names and name not in options.names:
                continue
            facts = results.machine(python)
            found[name] = results.entry(part.TITLE, part.measure(lab), facts)
            print(results.section(found[name]), flush=True)
    results.write(options.output, {name: found[name] for name in PARTS if name in found})
    return 0


if __name__ == "__main__":
    sys.exit(main())
