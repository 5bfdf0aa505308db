"""The model names that clients may ask for: `moa-jerry-xl` is `moa` on `jerry-xl`. Pure."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from .responses import Refused


def offered(strategies: Sequence[str], base_models: Sequence[str]) -> list[str]:
    """The names that clients may ask for."""
    return [f"{strategy}-{base}" for base in base_models for strategy in strategies]


def resolve(
    model: str,
    choice: str | None,
    *,
    strategies: Sequence[str],
    base_models: Sequence[str],
    loaded: Collection[str],
) -> tuple[str, str]:
    """The strategy and base model of a request. `choice`: the strategy in the body, or None.

    The whole name must match. OptiLLM's parser removes every leading strategy word, and would read
    `moa-proxy-large` as the base model `large`.

    Args:
        strategies: the enabled strategies.
        loaded: the strategies that OptiLLM loaded.

    Raises:
        Refused: 400, the name has no enabled strategy or no known base model.
    """
    # the name of one base model may end with the name of another: take the longest
    base = max((b for b in base_models if model.endswith(f"-{b}")), key=len, default=None)
    if model in base_models:
        raise Refused(
            400,
            "strategy_prefix_required",
            f"{model} has no strategy prefix: use {strategies[0]}-{model}",
        )
    prefix = model[: -len(base) - 1] if base else model.split("-", 1)[0]
    if not base and prefix in strategies:
        raise Refused(
            400,
            "base_model_unknown",
            f"{model} has no known base model; known: {', '.join(base_models)}",
        )
    strategy = choice or prefix
    if not base or prefix not in strategies or strategy not in strategies:
        wrong = strategy if base and prefix in strategies else prefix
        raise Refused(
            400,
            "strategy_not_enabled",
            f"{wrong!r} is not an enabled strategy; enabled: {', '.join(strategies)}",
        )
    if strategy not in loaded:
        raise Refused(
            400,
            "strategy_not_loaded",
            f"OptiLLM did not load {strategy}; the service's start-up log has the reason",
        )
    return strategy, base
