"""Names that stand for other models: aliases and wildcards."""

from __future__ import annotations

from .case import ARRIVES, DOWN, JERRY, MOA, Case, aliased, entry, listed

CASES = [
    # aliases
    Case("alias", listed(MOA, JERRY, rest=aliased("NN-boost: moa-NN-jerry")), False, ARRIVES),
    Case(
        "alias-hidden",
        listed(MOA, JERRY, rest=aliased("NN-boost: {model: moa-NN-jerry, hidden: true}")),
        False,
        ARRIVES,
    ),
    Case(
        "alias-outranks", listed(MOA, JERRY, rest=aliased("NN-jerry: moa-NN-jerry")), True, ARRIVES
    ),
    Case(
        "alias-hidden-outranks",
        listed(MOA, JERRY, rest=aliased("NN-jerry: {model: moa-NN-jerry, hidden: true}")),
        True,
        ARRIVES,
    ),
    Case(
        "alias-of-alias",
        listed(MOA, JERRY, rest=aliased("NN-a: NN-b, NN-b: moa-NN-jerry")),
        False,
        ARRIVES,
    ),
    Case(
        "alias-has-no-fallbacks-of-its-target",
        listed(
            entry("moa-NN-a", "openai/moa-NN-a", "OPTILLM"),
            DOWN,
            rest=aliased("NN-a: NN-jerry", "NN-jerry: [moa-NN-a]"),
        ),
        False,
        ("moa-NN-a",),
        bases=("NN-a",),
    ),
    Case(
        "alias-has-fallbacks-of-its-own",
        listed(
            entry("moa-NN-a", "openai/moa-NN-a", "OPTILLM"),
            DOWN,
            rest=aliased("NN-a: NN-jerry", "NN-a: [moa-NN-a]"),
        ),
        True,
        ("moa-NN-a",),
        bases=("NN-a",),
    ),
    Case(
        "fall-to-alias",
        listed(MOA, DOWN, rest=aliased("NN-a: moa-NN-jerry", "NN-jerry: [NN-a]")),
        True,
        ARRIVES,
    ),
    Case(
        "library-alias",
        listed(MOA, JERRY, rest="litellm_settings: {model_alias_map: {NN-jerry: moa-NN-jerry}}"),
        True,
        ARRIVES,
    ),
    # wildcards
    Case(
        "wild-strategy",
        listed(entry("NN/*", "openai/moa-NN-*", "OPTILLM"), JERRY),
        False,
        ("moa-NN-any-model", "moa-NN-NN-jerry", "moa-NN-moa-NN-jerry", "moa-NN-bon-NN-jerry"),
        "wild",
    ),
    Case(
        "wild-swallows",
        listed(MOA, entry("NN-*", "openai/moa-NN-*", "OPTILLM")),
        True,
        (
            "moa-NN-jerry",
            "moa-NN-any-model",
            "moa-NN-moa-NN-jerry",
            "moa-NN-bon-NN-jerry",
            "moa-NN-NN-jerry",
        ),
        "wild",
    ),
    Case(
        "wild-outranked",
        listed(MOA, JERRY, entry("NN-*", "openai/NN-*", "REAL")),
        False,
        ARRIVES,
        "wild",
    ),
    Case(
        "wild-most-special",
        listed(
            MOA, entry("NN-*", "openai/NN-*", "OPTILLM"), entry("NN-jer*", "openai/NN-jer*", "REAL")
        ),
        True,
        ("moa-NN-jerry", "NN-any-model", "NN-NN-jerry", "NN-moa-NN-jerry", "NN-bon-NN-jerry"),
        "wild",
    ),
]
