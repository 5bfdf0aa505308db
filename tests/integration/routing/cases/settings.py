"""Another file, and settings of the whole LiteLLM."""

from __future__ import annotations

from .case import ARRIVES, DOWN, JERRY, MOA, TOM, Case, entry, fallbacks, listed

CASES = [
    # another file
    Case(
        "included",
        "include: [NN.yaml]\n" + listed(MOA),
        True,
        ARRIVES,
        files={"NN.yaml": listed(entry("NN-jerry", "openai/moa-NN-jerry", "OPTILLM"))},
    ),
    Case(
        "included-good",
        "include: [NN.yaml]\n" + listed(MOA),
        False,
        ARRIVES,
        files={"NN.yaml": listed(JERRY)},
    ),
    # settings of the whole LiteLLM
    Case(
        "library-fall-back",
        listed(MOA, DOWN, rest=fallbacks("NN-jerry: [moa-NN-jerry]", section="litellm_settings")),
        True,
        ARRIVES,
        "library",
    ),
    Case(
        "library-fall-away",
        listed(MOA, DOWN, TOM, rest=fallbacks("NN-jerry: [NN-tom]", section="litellm_settings")),
        False,
        ARRIVES,
        "library",
    ),
    Case(
        "library-long",
        listed(
            MOA,
            entry("NN-jerry", "openai/NN-long", "REAL"),
            rest=fallbacks(
                "NN-jerry: [moa-NN-jerry]",
                key="context_window_fallbacks",
                section="litellm_settings",
            ),
        ),
        True,
        ARRIVES,
        "library",
    ),
    Case(
        "library-rude",
        listed(
            MOA,
            entry("NN-jerry", "openai/NN-rude", "REAL"),
            rest=fallbacks(
                "NN-jerry: [moa-NN-jerry]",
                key="content_policy_fallbacks",
                section="litellm_settings",
            ),
        ),
        True,
        ARRIVES,
        "library",
    ),
    Case(
        "openai-variable",
        listed(
            MOA,
            "- {model_name: NN-jerry, litellm_params: {model: openai/moa-NN-jerry, api_key: any}}",
        ),
        True,
        ARRIVES,
        "library",
        environment={"OPENAI_API_BASE": "http://127.0.0.1:PORT/v1"},
    ),
    Case(
        "default",
        listed(
            MOA,
            DOWN,
            entry("moa-NN-tom", "openai/moa-NN-tom", "OPTILLM"),
            entry("NN-tom", "openai/NN-down", "REAL"),
            entry("NN-last", "openai/NN-down", "REAL"),
            rest=fallbacks("NN-tom: [NN-last]", "moa-NN-tom: [NN-last]")
            + "  default_fallbacks: [moa-NN-jerry]\n",
        ),
        True,
        ("moa-NN-jerry", "moa-NN-tom"),
        "default",
        bases=("NN-jerry", "NN-tom"),
    ),
    Case(
        "star",
        listed(MOA, entry("*", "openai/*", "OPTILLM")),
        True,
        ("moa-NN-jerry", "NN-jerry", "any-model", "bon-NN-jerry", "openai/moa-NN-jerry"),
        "star",
    ),
    Case(
        "no-fallbacks",
        listed(MOA, DOWN, rest=fallbacks("NN-jerry: [moa-NN-jerry]") + "  max_fallbacks: 0\n"),
        False,
        ARRIVES,
        "wild",
    ),
    Case(
        "only-model",
        listed(MOA, JERRY, rest="general_settings: {completion_model: moa-NN-jerry}"),
        True,
        ARRIVES,
        "only",
    ),
]
