"""Entries of a model_list: what each sends to which address."""

from __future__ import annotations

from .case import ARRIVES, JERRY, LOOPS, MOA, TOM, Case, entry, listed

CASES = [
    Case("plain", listed(MOA, JERRY), False, ARRIVES),
    Case(
        "two-strategies",
        listed(MOA, entry("bon-NN-jerry", "openai/bon-NN-jerry", "OPTILLM"), JERRY),
        False,
        ("moa-NN-jerry", "bon-NN-jerry"),
    ),
    Case(
        "mocked",
        listed(MOA, entry("NN-jerry", "openai/x", "OPTILLM", ", mock_response: four")),
        False,
        ARRIVES,
    ),
    # deployments
    Case("unprefixed", listed(MOA, entry("NN-jerry", "openai/NN-jerry", "OPTILLM")), True, LOOPS),
    Case(
        "unprefixed-other",
        listed(MOA, JERRY, entry("NN-fast", "openai/NN-jerry", "OPTILLM")),
        False,
        LOOPS,
    ),
    Case(
        "one-of-two",
        listed(MOA, JERRY, entry("NN-jerry", "openai/bon-NN-jerry", "OPTILLM")),
        True,
        ("moa-NN-jerry", "bon-NN-jerry"),
    ),
    Case(
        "two-good",
        listed(MOA, MOA, JERRY, entry("NN-jerry", "openai/NN-tom", "REAL")),
        False,
        ARRIVES,
    ),
    Case(
        "not-enabled",
        listed(entry("NN-tree", "openai/mcts-NN-jerry", "OPTILLM"), JERRY),
        False,
        ("mcts-NN-jerry",),
    ),
    Case(
        "joined",
        listed(entry("NN-both", "openai/moa&bon-NN-jerry", "OPTILLM"), JERRY),
        False,
        ("moa&bon-NN-jerry",),
    ),
    Case(
        "two-words",
        listed(entry("NN-both", "openai/moa-bon-NN-jerry", "OPTILLM"), JERRY),
        False,
        ("moa-bon-NN-jerry",),
    ),
    Case(
        "upper-case",
        listed(entry("Moa-NN-jerry", "openai/Moa-NN-jerry", "OPTILLM"), JERRY),
        True,
        ("Moa-NN-jerry",),
    ),
    Case("no-provider", listed(MOA, entry("NN-jerry", "moa-NN-jerry", "OPTILLM")), False, ARRIVES),
    Case(
        "by-id",
        listed(
            MOA,
            JERRY,
            "- {model_name: NN-x, litellm_params: {model: openai/bon-NN-jerry, api_base: OPTILLM,"
            " api_key: any}, model_info: {id: NN-id}}",
        ),
        False,
        ("moa-NN-jerry", "bon-NN-jerry"),
    ),
    Case(
        "credential",
        "credential_list:\n  - {credential_name: NN-c, "
        "credential_values: {api_base: OPTILLM, api_key: any},"
        " credential_info: {}}\n"
        + listed(
            MOA,
            (
                "- {model_name: NN-jerry, "
                "litellm_params: {model: openai/moa-NN-jerry, litellm_credential_name: NN-c}}"
            ),
        ),
        True,
        ARRIVES,
    ),
    Case(
        "mirror",
        listed(MOA, entry("NN-jerry", "openai/NN-jerry", "REAL", ", silent_model: moa-NN-jerry")),
        True,
        ARRIVES,
    ),
    Case(
        "mirror-of-another",
        listed(
            MOA, JERRY, entry("NN-fast", "openai/NN-fast", "REAL", ", silent_model: moa-NN-jerry")
        ),
        False,
        ARRIVES,
    ),
    Case("itself", listed(MOA, entry("NN-jerry", "openai/moa-NN-jerry", "LITELLM")), True, ARRIVES),
    Case(
        "itself-good",
        listed(MOA, TOM, entry("NN-jerry", "litellm_proxy/NN-tom", "LITELLM")),
        False,
        ARRIVES,
    ),
]
