"""What LiteLLM asks next when a model fails."""

from __future__ import annotations

from .case import ARRIVES, DOWN, JERRY, MOA, TOM, Case, entry, fallbacks, listed


def _hops(count: int) -> str:
    """Fallbacks one after the other: jerry, hop1, ..., the last of which is a strategy."""
    names = ["NN-jerry", *(f"NN-hop{n}" for n in range(1, count))]
    entries = [entry(name, "openai/NN-down", "REAL") for name in names]
    chains = [
        f"NN: [{after}]".replace("NN:", f"{name}:")
        for name, after in zip(names, [*names[1:], "moa-NN-jerry"], strict=True)
    ]
    return listed(MOA, *entries, rest=fallbacks(*chains))


CASES = [
    Case("fall-back", listed(MOA, DOWN, rest=fallbacks("NN-jerry: [moa-NN-jerry]")), True, ARRIVES),
    Case(
        "fall-back-away",
        listed(MOA, DOWN, TOM, rest=fallbacks("NN-jerry: [NN-tom]")),
        False,
        ARRIVES,
    ),
    Case(
        "fall-out-of-strategy",
        listed(MOA, DOWN, TOM, rest=fallbacks("moa-NN-jerry: [NN-tom]")),
        False,
        ARRIVES,
    ),
    Case(
        "fall-to-strategy",
        listed(
            MOA,
            entry("bon-NN-jerry", "openai/bon-NN-jerry", "OPTILLM"),
            DOWN,
            rest=fallbacks("moa-NN-jerry: [bon-NN-jerry]"),
        ),
        False,
        ("moa-NN-jerry", "bon-NN-jerry"),
    ),
    Case(
        "fall-over-two",
        listed(
            entry("moa-NN-tom", "openai/moa-NN-tom", "OPTILLM"),
            MOA,
            DOWN,
            entry("NN-tom", "openai/NN-down", "REAL"),
            rest=fallbacks("NN-jerry: [NN-tom]", "NN-tom: [moa-NN-tom]"),
        ),
        True,
        ("moa-NN-jerry", "moa-NN-tom"),
        bases=("NN-jerry", "NN-tom"),
    ),
    Case(
        "fall-second-target",
        listed(
            MOA,
            DOWN,
            entry("NN-tom", "openai/NN-down", "REAL"),
            rest=fallbacks("NN-jerry: [NN-tom, moa-NN-jerry]"),
        ),
        True,
        ARRIVES,
    ),
    Case(
        "fall-dict-target",
        listed(MOA, DOWN, rest=fallbacks("NN-jerry: [{model: moa-NN-jerry}]")),
        True,
        ARRIVES,
    ),
    Case(
        "fall-first-chain-counts",
        listed(
            MOA,
            DOWN,
            entry("NN-tom", "openai/NN-down", "REAL"),
            rest=fallbacks("NN-jerry: [NN-tom]", "NN-jerry: [moa-NN-jerry]"),
        ),
        False,
        ARRIVES,
    ),
    Case(
        "fall-to-unlisted",
        listed(MOA, DOWN, rest=fallbacks("NN-jerry: [NN-missing]")),
        False,
        ARRIVES,
    ),
    Case(
        "fall-without-provider",
        listed(
            MOA,
            entry("openai/NN-jerry", "openai/NN-down", "REAL"),
            rest=fallbacks("NN-jerry: [moa-NN-jerry]"),
        ),
        False,
        ARRIVES,
    ),
    Case("fall-too-far", _hops(6), False, ARRIVES),
    Case("fall-far", _hops(5), True, ARRIVES),
    Case(
        "other-plain-model-falls-to-strategy",
        listed(
            MOA,
            JERRY,
            entry("NN-fast", "openai/NN-down", "REAL"),
            rest=fallbacks("NN-fast: [moa-NN-jerry]"),
        ),
        False,
        ARRIVES,
    ),
    Case(
        "long",
        listed(
            MOA,
            entry("NN-jerry", "openai/NN-long", "REAL"),
            rest=fallbacks("NN-jerry: [moa-NN-jerry]", key="context_window_fallbacks"),
        ),
        True,
        ARRIVES,
    ),
    Case(
        "long-away",
        listed(
            MOA,
            entry("NN-jerry", "openai/NN-long", "REAL"),
            TOM,
            rest=fallbacks("NN-jerry: [NN-tom]", key="context_window_fallbacks"),
        ),
        False,
        ARRIVES,
    ),
    Case(
        "rude",
        listed(
            MOA,
            entry("NN-jerry", "openai/NN-rude", "REAL"),
            rest=fallbacks("NN-jerry: [moa-NN-jerry]", key="content_policy_fallbacks"),
        ),
        True,
        ARRIVES,
    ),
    Case(
        "rude-away",
        listed(
            MOA,
            entry("NN-jerry", "openai/NN-rude", "REAL"),
            TOM,
            rest=fallbacks("NN-jerry: [NN-tom]", key="content_policy_fallbacks"),
        ),
        False,
        ARRIVES,
    ),
    Case(
        "own-fallback-stays-there",
        listed(
            MOA, entry("NN-jerry", "openai/NN-down", "REAL", ", fallbacks: [openai/moa-NN-jerry]")
        ),
        False,
        ARRIVES,
    ),
    Case(
        "own-fallback",
        listed(
            MOA,
            entry(
                "NN-jerry",
                "openai/NN-down",
                "REAL",
                ", fallbacks: [{model: openai/bon-NN-jerry, api_base: OPTILLM}]",
            ),
        ),
        True,
        ("moa-NN-jerry", "bon-NN-jerry"),
    ),
]
