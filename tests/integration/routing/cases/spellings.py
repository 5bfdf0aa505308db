"""Ways to write the model of an entry, and the address of OptiLLM."""

from __future__ import annotations

from .case import ARRIVES, JERRY, MOA, Case, entry, listed


def _prefixed(name: str, model: str, arrival: str, loops: bool, more: str = "") -> Case:
    """A way to write the model of the strategy's entry."""
    return Case(name, listed(entry("NN-plan", model, "OPTILLM", more), JERRY), loops, (arrival,))


def _spelled(name: str, base: str, **environment: str) -> list[Case]:
    """The same two configurations with another OptiLLM address: one good, one that loops."""
    moa = entry("moa-NN-jerry", "openai/moa-NN-jerry", base)
    back = entry("NN-jerry", "openai/moa-NN-jerry", base)
    return [
        Case(f"{name}-good", listed(moa, JERRY), False, ARRIVES, environment=environment),
        Case(f"{name}-loop", listed(moa, back), True, ARRIVES, environment=environment),
    ]


CASES = [
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
]
