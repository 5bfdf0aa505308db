"""LiteLLM configurations as data, each with what its author says of it; test_reality compares.

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


#: What `optictl render-litellm` prints, in short.
MOA = entry("moa-NN-jerry", "openai/moa-NN-jerry", "OPTILLM")
JERRY = entry("NN-jerry", "openai/NN-jerry", "REAL")
DOWN = entry("NN-jerry", "openai/NN-down", "REAL")
TOM = entry("NN-tom", "openai/NN-tom", "REAL")
ARRIVES = ("moa-NN-jerry",)
LOOPS = ("moa-NN-jerry", "NN-jerry")


def _spelled(name: str, base: str, **environment: str) -> list[Case]:
    """The same two configurations with another OptiLLM address: one good, one that loops."""
    moa = entry("moa-NN-jerry", "openai/moa-NN-jerry", base)
    back = entry("NN-jerry", "openai/moa-NN-jerry", base)
    return [
        Case(f"{name}-good", listed(moa, JERRY), False, ARRIVES, environment=environment),
        Case(f"{name}-loop", listed(moa, back), True, ARRIVES, environment=environment),
    ]


def _prefixed(name: str, model: str, arrival: str, loops: bool, more: str = "") -> Case:
    """A way to write the model of the strategy's entry."""
    return Case(name, listed(entry("NN-plan", model, "OPTILLM", more), JERRY), loops, (arrival,))


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
    # fallbacks
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
        "fall-to-nobody", listed(MOA, DOWN, rest=fallbacks("NN-jerry: [NN-nobody]")), False, ARRIVES
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
    # names of providers
    _prefixed("custom-openai", "custom_openai/moa-NN-jerry", "moa-NN-jerry", False),
    _prefixed("hosted-vllm", "hosted_vllm/moa-NN-jerry", "moa-NN-jerry", False),
    _prefixed("lm-studio", "lm_studio/moa-NN-jerry", "moa-NN-jerry", False),
    _prefixed("litellm-proxy", "litellm_proxy/moa-NN-jerry", "moa-NN-jerry", False),
    _prefixed("llamafile", "llamafile/moa-NN-jerry", "moa-NN-jerry", False),
    _prefixed("mistral", "mistral/moa-NN-jerry", "moa-NN-jerry", False),
    Case(
        "other-language",
        listed(MOA, entry("NN-jerry", "anthropic/NN-jerry", "OPTILLM")),
        False,
        ARRIVES,
    ),
    _prefixed("deepseek", "deepseek/moa-NN-jerry", "moa-NN-jerry", False),
    _prefixed("groq", "groq/moa-NN-jerry", "moa-NN-jerry", False),
    _prefixed("together", "together_ai/moa-NN-jerry", "moa-NN-jerry", False),
    _prefixed("twice", "openai/openai/moa-NN-jerry", "openai/moa-NN-jerry", False),
    _prefixed(
        "named-provider", "moa-NN-jerry", "moa-NN-jerry", False, ", custom_llm_provider: openai"
    ),
    _prefixed(
        "other-named-provider",
        "openai/moa-NN-jerry",
        "openai/moa-NN-jerry",
        True,
        ", custom_llm_provider: hosted_vllm",
    ),
    # this host, spelled in other ways
    *_spelled("localhost", "http://localhost:PORT/v1"),
    *_spelled("shouted", "HTTP://LocalHost:PORT/v1/"),
    *_spelled("loopback-2", "http://127.0.0.2:PORT/v1"),
    *_spelled("v6", "http://[::1]:PORT/v1"),
    *_spelled("unspecified", "http://0.0.0.0:PORT/v1"),
    *_spelled("no-v1", "http://127.0.0.1:PORT"),
    *_spelled(
        "variable", "os.environ/ROUTING_TEST_BASE", ROUTING_TEST_BASE="http://127.0.0.1:PORT/v1"
    ),
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
