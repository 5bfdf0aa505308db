"""OptiLLM's model-name grammar."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.deployment import model_names
from optictl.guard import invariants

STRATEGIES = ("moa", "bon", "self_consistency")
BASES = ("jerry-xl", "xl", "a-b")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("moa-jerry-xl", ("moa", "jerry-xl")),
        ("self_consistency-jerry-xl", ("self_consistency", "jerry-xl")),
        ("moa-xl", ("moa", "xl")),
        ("bon-a-b", ("bon", "a-b")),
        ("jerry-xl", None),
        ("moa", None),
        ("moa-", None),
        ("-jerry-xl", None),
        ("", None),
        ("mcts-jerry-xl", None),
        ("moa-tom", None),
        ("moa-bon-jerry-xl", None),
        ("moa&bon-jerry-xl", None),
        ("Moa-jerry-xl", None),
        ("moa-jerry-xl ", None),
        ("proxy-moa-jerry-xl", None),
    ],
)
def test_split(name: str, expected: tuple[str, str] | None) -> None:
    assert model_names.split(name, STRATEGIES, BASES) == expected


@given(st.sampled_from(STRATEGIES), st.sampled_from(BASES))
def test_split_undoes_the_join(strategy: str, base: str) -> None:
    assert model_names.split(f"{strategy}-{base}", STRATEGIES, BASES) == (strategy, base)


@pytest.mark.parametrize("word", ["moa", "re2", "z3", "self_consistency", "my_plugin", "3d"])
def test_slugs(word: str) -> None:
    assert model_names.is_slug(word)


@pytest.mark.parametrize("word", ["", "a-b", "a&b", "a|b", "A", "a b", "_a", "a\n", "ä"])
def test_no_slugs(word: str) -> None:
    assert not model_names.is_slug(word)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("moa-x", "reads that as a strategy and removes it"),
        ("moa", "no name is left"),
        ("moa-", "no name is left"),
        ("Moa-x", "lower case only"),
        ("RE2-x", "lower case only"),
        ("proxy-large", "reads that as a strategy and removes it"),
        ("router", "reads that as a strategy and removes it"),
        ("a&b", "one after the other"),
        ("a|b", "side by side"),
        ("auto", "reserved word"),
        ("", "is not a model name"),
        ("a b", "is not a model name"),
        ("$x", "is not a model name"),
    ],
)
def test_a_base_model_that_would_not_arrive(name: str, reason: str) -> None:
    assert reason in (model_names.base_model_problem(name) or "")


@pytest.mark.parametrize(
    ("name", "kind", "reason"),
    [
        ("jerry-xl", "prefix", "no strategy prefix"),
        ("gpt-4o", "prefix", "no strategy prefix"),
        ("", "prefix", "no strategy prefix"),
        ("openai/moa-jerry-xl", "prefix", "no strategy prefix"),
        ("Moa-jerry-xl", "prefix", "lower case only"),
        ("mcts-jerry-xl", "strategy", "'mcts' is not an enabled strategy"),
        ("none-jerry-xl", "strategy", "'none' is not an enabled strategy"),
        ("moa-bon-xl", "strategy", "'moa-bon' is not an enabled strategy"),
        ("moa&bon-jerry-xl", "strategy", "combines strategies"),
        ("moa|bon-jerry-xl", "strategy", "combines strategies"),
        ("moa-tom", "base model", "'tom' is not in base_models"),
        ("moa-proxy-large", "base model", "reads that as a strategy and removes it"),
        ("moa-a&b", "base model", "one after the other"),
        ("moa", "base model", "no base model after"),
        ("moa-", "base model", "no base model after"),
    ],
)
def test_a_name_that_the_door_refuses(name: str, kind: str, reason: str) -> None:
    refusal = model_names.refusal(name, STRATEGIES, BASES)
    assert refusal is not None
    assert refusal[0] == kind
    assert reason in refusal[1]


@pytest.mark.parametrize("name", ["moa-jerry-xl", "bon-a-b", "self_consistency-xl"])
def test_a_name_that_the_door_lets_in(name: str) -> None:
    assert model_names.refusal(name, STRATEGIES, BASES) is None


def test_those_that_need_a_permission_are_words() -> None:
    assert set(model_names.CODE_EXECUTION) <= model_names.WORDS


def test_what_the_guard_does_not_offer_is_no_strategy() -> None:
    assert set(model_names.NOT_STRATEGIES) == {"none", *invariants.NOT_OFFERED}
    for word, reason in invariants.NOT_OFFERED.items():
        assert model_names.NOT_STRATEGIES[word].endswith(reason)


def test_the_words_of_a_release_decide() -> None:
    words = {*model_names.WORDS, "compact"}
    name = "compact-jerry-xl"
    assert model_names.refusal(name, STRATEGIES, BASES) == (
        "prefix",
        "it has no strategy prefix",
    )
    assert model_names.refusal(name, STRATEGIES, BASES, words) == (
        "strategy",
        "'compact' is not an enabled strategy",
    )


@pytest.mark.parametrize(
    ("version", "are_known"),
    [("0.3.12", True), ("0.3.22", True), ("0.4.0", True), ("0.4.1", False), ("1.0", False)],
)
def test_the_versions_whose_words_are_known(version: str, are_known: bool) -> None:
    assert model_names.are_known(version) is are_known


@pytest.mark.parametrize(
    ("strategies", "named"),
    [
        (("moa", "bon", "plansearch", "self_consistency", "memory"), set()),
        (("moa", "z3", "bon", "coc"), {"z3", "coc"}),
        (("moa&z3", "executecode|mcp", "re2-readurls"), {"z3", "executecode", "mcp", "readurls"}),
        (("z3x", "my_coc"), set()),
    ],
)
def test_those_that_need_a_permission_are_found(
    strategies: tuple[str, ...], named: set[str]
) -> None:
    found = model_names.code_execution(strategies)
    assert set(found) == named
    assert all(found[name] == model_names.CODE_EXECUTION[name] for name in named)
