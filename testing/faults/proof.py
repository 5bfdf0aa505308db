"""The proof of one fault: break, check, fix, check again."""

from __future__ import annotations

import time

from testing.faults.bench import Bench, Look
from testing.faults.fault import Fault


def prove(bench: Bench, fault: Fault) -> Look:
    """What was seen while it was broken. Whatever happens, the deployment is healthy afterwards.

    Raises:
        AssertionError: another cause was shown, or the remedy did not fix it.
    """
    fixed = False
    try:
        fault.breaks(bench)
        broken = bench.look()
        _fix(bench, fault, broken)
        fixed = True
    finally:
        if not fixed:
            bench.restore()
    return broken


def _fix(bench: Bench, fault: Fault, broken: Look) -> None:
    assert [r.id for r in broken.roots] == [fault.id], {
        r.id: (r.found, r.cause) for r in broken.results if r.failed
    }
    remedy = broken.roots[0].remedy
    assert fault.says in remedy, remedy
    if fault.outside is not None:
        fault.outside(bench)
    typed = remedy if fault.typed is None else fault.typed
    assert typed in remedy, remedy
    if typed:
        bench.typed(typed)
    if fault.id == "key.strength":
        bench.tell_litellm()
    healed = bench.look(whole=False)
    for _ in range(3):
        if not healed.complaints:
            break
        time.sleep(1)
        healed = bench.look(whole=False)
    assert healed.complaints == {}, f"after {typed!r}: {healed.complaints}"
    if fault.after is not None:
        fault.after(bench)
