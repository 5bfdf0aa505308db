"""Skip imports that only disabled strategies of OptiLLM need.

`optillm.server` imports every strategy (0.3.12, 0.3.13). Four of them import z3, sympy, networkx,
numpy, aiohttp and the SDK of another provider: half of the CPU time and memory of a start. The
guard refuses requests for disabled strategies, and does not start with the key of another provider.
OpenAI's SDK imports aiohttp too, for an asynchronous client that is not used here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

#: strategy -> the modules that only it needs
_PARTS = {
    "mcts": ("optillm.mcts",),
    "z3": ("optillm.z3_solver",),
    "cepo": ("math_verify", "cerebras.cloud.sdk"),
    "rstar": ("optillm.rstar",),
}
#: strategy -> the package that it needs and that other importers do without
_OPTIONAL = {"rstar": "aiohttp"}


class _Absent(ModuleType):
    """A stub module. It has every name; a call of one raises an error."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def absent(*_arguments: Any, **_options: Any) -> Any:
            raise RuntimeError(f"{self.__name__} was not imported: no enabled strategy needs it")

        return absent


@contextmanager
def left_out(enabled: Collection[str]) -> Iterator[None]:
    """Within the block, imports skip the modules that no strategy of `enabled` needs.

    A later import of such a module, for example by a plugin, loads the real one.
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
