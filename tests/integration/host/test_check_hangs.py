"""A check that hangs does not keep optictl from its end."""

from __future__ import annotations

import subprocess
import sys


def test_optictl_ends_although_a_check_hangs() -> None:
    program = (
        "import time\nfrom optictl.checks import engine\n"
        "hang = engine.Check('a.b', 't', 'e', False, 0.1, lambda subject: iter([time.sleep(60)]))\n"
        "print(engine.run([hang], None)[0].status)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=15
    )
    assert (result.stdout, result.returncode) == ("error\n", 0)
