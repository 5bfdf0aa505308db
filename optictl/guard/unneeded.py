"""Parts of OptiLLM that serve only strategies which are not enabled, left out of the import.

`optillm.server` imports every strategy (0.3.12, 0.3.13). Four of them bring z3, sympy, networkx, numpy, aiohttp and another
provider's SDK along: half of the CPU time of a start and of the memory. The door lets nobody ask for a strategy that is not
enabled, and the guard does not start with the key of another provider. OpenAI's SDK, too, takes aiohttp where it is installed,
for an asynchronous client that nobody here makes.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

#: strategy -> the modules that are imported for it alone: its own, or for cepo those that it uses
_PARTS = {
    "mcts": ("optillm.mcts",),
    "z3": ("optillm.z3_solver",),
    "cepo": ("math_verify", "cerebras.cloud.sdk"),
    "rstar": ("optillm.rstar",),
}
#: strategy -> what is taken for not installed without it, by those who can do without
_OPTIONAL = {"rstar": "aiohttp"}


class _Absent(ModuleType):
    """Has every name that is asked for; what is called by one of them says that it is not there."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def absent(*_arguments: Any, **_options: Any) -> Any:
            raise RuntimeError(f"{self.__name__} was left out: no enabled strategy needs it")

        return absent


@contextmanager
def left_out(enabled: Collection[str]) -> Iterator[None]:
    """Nothing that is imported within the block brings parts along that no strategy of `enabled` needs.

    Whoever imports one of them later, as a plugin may, gets the real one.
    """
    unasked = (
        part for strategy, parts in _PARTS.items() if strategy not in enabled for part in parts
    )
    absent: dict[str, Any] = {part: _Absent(part) for part in unasked}
    absent |= {
        part: None for strategy, part in _OPTIONAL.items() if strategy not in enabled
    }  # None: ImportError
    absent = {part: module for part, module in absent.items() if part not in sys.modules}
    sys.modules.update(absent)
    try:
        yield
    finally:
        for part in absent:
            del sys.modules[part]
