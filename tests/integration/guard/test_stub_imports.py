"""What no enabled strategy needs is not imported with OptiLLM, and can be imported later."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

#: What the four strategies bring along, and the modules that stand for them.
LIBRARIES = {"z3", "sympy", "networkx", "numpy", "aiohttp"}
PARTS = {"optillm.mcts", "optillm.z3_solver", "optillm.rstar", "math_verify", "cerebras.cloud.sdk"}

_SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from guard import stub_imports
with stub_imports.left_out(sys.argv[2].split(",")):
    import optillm.server as server
names = set(sys.argv[3].split(","))
found = {"at once": sorted(names.intersection(sys.modules))}
try:
    server.Z3SymPySolverSystem("system", None, "model")
except RuntimeError as error:
    found["called"] = str(error)
import aiohttp, cerebras.cloud.sdk, math_verify, optillm.mcts, optillm.rstar, optillm.z3_solver
real = (
    cerebras.cloud.sdk.Cerebras,
    optillm.mcts.chat_with_mcts,
    optillm.z3_solver.Z3SymPySolverSystem,
    optillm.rstar.RStar,
)
found["later"] = [math_verify.parse("$1$") != [], *(one.__name__ for one in real)]
print(json.dumps(found))
"""


def _imported(release: Path, enabled: str) -> dict[str, Any]:
    python = release / ".venv/bin/python"
    command = [python, "-c", _SCRIPT, release, enabled, ",".join(LIBRARIES | PARTS)]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd="/")
    found: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return found


def test_what_no_enabled_strategy_needs_is_left_out(release: Path) -> None:
    found = _imported(release, "moa,bon,plansearch,self_consistency")
    assert found["at once"] == []
    assert "optillm.z3_solver was not imported" in found["called"]
    assert found["later"] == [True, "Cerebras", "chat_with_mcts", "Z3SymPySolverSystem", "RStar"]


def test_an_enabled_strategy_has_its_whole_part(release: Path) -> None:
    assert _imported(release, "mcts")["at once"] == ["networkx", "numpy", "optillm.mcts"]
    found = _imported(release, "mcts,z3,cepo,rstar")
    assert set(found["at once"]) == LIBRARIES | PARTS
    assert "called" not in found
