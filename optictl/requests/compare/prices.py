"""The prices of base models, as the running LiteLLM knows them. It costs no tokens."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from optictl.host import network
from optictl.requests.compare.summary import Prices

_TIMEOUT = 5
_NAMES = ("input_cost_per_token", "output_cost_per_token")


def ask(base_url: str, key: str, base_models: Collection[str]) -> dict[str, Prices]:
    """Base model -> its prices, for those that have any. `key`: the one for LiteLLM."""
    answer = network.request("GET", f"{base_url}/model/info", key=key, timeout=_TIMEOUT)
    return known(answer.data, base_models)


def known(data: Any, base_models: Collection[str]) -> dict[str, Prices]:
    """The same, from the answer of /v1/model/info. Pure.

    Of several entries of one name the most expensive one counts. LiteLLM reports 0 for a model that
    it does not know: then no price is known.
    """
    rows = data.get("data") if isinstance(data, dict) else None
    found: dict[str, Prices] = {}
    for row in rows if isinstance(rows, list) else ():
        name = str(row.get("model_name")) if isinstance(row, dict) else ""
        prices = _of(row.get("model_info")) if name in base_models else None
        if prices and (name not in found or _sum(prices) > _sum(found[name])):
            found[name] = prices
    return found


def _sum(prices: Prices) -> float:
    return prices.prompt + prices.completion


def _of(info: Any) -> Prices | None:
    values = [info.get(name) for name in _NAMES] if isinstance(info, dict) else []
    numbers = [v for v in values if isinstance(v, int | float) and not isinstance(v, bool)]
    if len(numbers) != len(_NAMES) or min(numbers) < 0 or max(numbers) <= 0:
        return None
    # of a token -> of a million tokens
    return Prices(*(round(number * 1e6, 9) for number in numbers))
