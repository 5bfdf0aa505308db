"""The prices of base models, for the entries of strategy models. Pure.

The usage of a strategy is the sum over all its calls, so a token of it costs what a token of the
base model costs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optictl.deployment.render import Price
from optictl.litellm import providers
from optictl.litellm.read import ModelEntry, Settings

#: The prices of one token that stay right when the tokens of several calls are added up. Those
#: above a number of tokens of one call are not here.
NAMES = (
    "input_cost_per_token",
    "output_cost_per_token",
    "output_cost_per_reasoning_token",
    "cache_read_input_token_cost",
    "cache_creation_input_token_cost",
)


@dataclass(frozen=True)
class PriceMap:
    """LiteLLM's own map of prices: model -> its prices. `path`: where it was read."""

    models: Mapping[str, Any]
    path: str


def of_base_models(
    settings: Settings, base_models: tuple[str, ...], prices: PriceMap | None
) -> dict[str, Price]:
    """The prices of the base models that have any: base model -> prices.

    An entry's own prices count before those of the map, as in LiteLLM. Of several entries of one
    name, the most expensive one counts.
    """
    found = {}
    for base in base_models:
        candidates = [
            price
            for entry in settings.entries
            if entry.name == base and (price := _of_entry(entry, prices))
        ]
        if candidates:
            found[base] = max(candidates, key=lambda price: sum(price.values.values()))
    return found


def _of_entry(entry: ModelEntry, prices: PriceMap | None) -> Price | None:
    own = _numbers({**entry.parameters, **entry.info})
    if own:
        return Price(own, str(entry.place))
    for name in _names(entry) if prices else ():
        row = prices.models.get(name) if prices else None
        if isinstance(row, Mapping) and (values := _numbers(row)):
            return Price(values, f"{name} in LiteLLM's price map")
    return None


def _names(entry: ModelEntry) -> list[str]:
    """The names under which the map may have the model of an entry, the most exact first."""
    model = entry.parameters.get("model")
    named = entry.parameters.get("custom_llm_provider")
    stated = entry.info.get("base_model") or entry.parameters.get("base_model")
    names = [stated, model]
    if isinstance(model, str):
        split = providers.split(model, named if isinstance(named, str) else None)
        names += [f"{split[0]}/{split[1]}", split[1]] if split else []
    return [name for name in names if isinstance(name, str)]


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    """The prices of a token in a mapping. YAML reads `1e-06` as text, and LiteLLM as a number."""
    values = {}
    for name in NAMES:
        try:
            value = float(row[name])
        except (KeyError, TypeError, ValueError):
            continue
        if 0 <= value < float("inf") and not isinstance(row[name], bool):
            values[name] = value
    return values
