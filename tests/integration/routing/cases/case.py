"""What a case is: a LiteLLM configuration as data, with what its author says of it.

In the texts NN is the case's name, so that many cases fit into one LiteLLM, and OPTILLM, LITELLM
and REAL are the addresses of OptiLLM, of LiteLLM itself and of a real model. A real model whose
name holds `down` answers 500, with `long` that the context is too long, with `rude` that a policy
forbids it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import yaml

STRATEGIES = ("moa", "bon")


@dataclass(frozen=True)
class Case:
    """One configuration. `loops`: a request for a strategy comes back to OptiLLM.

    `arrivals`: the names that OptiLLM is asked for. `process` names the LiteLLM that serves it:
    cases whose settings are about every model need a separate one.
    """

    name: str
    text: str
    loops: bool
    arrivals: tuple[str, ...]
    process: str = "main"
    bases: tuple[str, ...] = ("NN-jerry",)
    files: Mapping[str, str] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    def filled(self, text: str, addresses: Mapping[str, str]) -> str:
        text = text.replace("NN", self.name)
        for word, address in addresses.items():
            text = text.replace(word, address)
        return text

    @property
    def base_models(self) -> tuple[str, ...]:
        return tuple(base.replace("NN", self.name) for base in self.bases)


def entry(name: str, model: str, base: str, more: str = "") -> str:
    """One line of a model_list."""
    return (
        f'- {{model_name: "{name}", litellm_params: {{model: "{model}", '
        f'api_base: "{base}", api_key: MASTER{more}}}}}'
    )


def listed(*entries: str, rest: str = "") -> str:
    lines = "\n".join(f"  {line}" for line in entries)
    return f"model_list:\n{lines}\n{rest}"


def fallbacks(*chains: str, key: str = "fallbacks", section: str = "router_settings") -> str:
    return f"{section}:\n  {key}:\n" + "".join(f"    - {chain}\n" for chain in chains)


def aliased(aliases: str, *chains: str) -> str:
    lines = "".join(f"    - {chain}\n" for chain in chains)
    return (
        f"router_settings:\n  model_group_alias: {{{aliases}}}\n  fallbacks:\n{lines or '    []'}\n"
    )


#: What `optictl render litellm` prints, in short.
MOA = entry("moa-NN-jerry", "openai/moa-NN-jerry", "OPTILLM")
JERRY = entry("NN-jerry", "openai/NN-jerry", "REAL")
DOWN = entry("NN-jerry", "openai/NN-down", "REAL")
TOM = entry("NN-tom", "openai/NN-tom", "REAL")
ARRIVES = ("moa-NN-jerry",)
LOOPS = ("moa-NN-jerry", "NN-jerry")


def merged(documents: list[Any]) -> dict[str, Any]:
    """Several configurations as one: lists grow, mappings are joined."""
    whole: dict[str, Any] = {}
    for document in documents:
        for key, value in document.items():
            mine = whole.get(key)
            if isinstance(mine, dict) and isinstance(value, dict):
                whole[key] = merged([mine, value])
            elif isinstance(mine, list) and isinstance(value, list):
                whole[key] = [*mine, *value]
            else:
                whole[key] = value
    return whole


def parsed(text: str) -> Any:
    return yaml.safe_load(text)
