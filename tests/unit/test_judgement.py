"""Whether a strategy had its effect, judged from its exchanges."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optictl.guard import judgement
from optictl.guard.exchanges import Exchange, Run, Sample
from optictl.guard.judgement import CODES, Judgement
from testing.effect import OBSERVED, candidates, exchange, healthy, ratings, samples


def judged(strategy: str, exchanges: Sequence[Exchange], **run: object) -> Judgement:
    found = judgement.judge(strategy, [Run(list(exchanges), **run)])
    assert found is not None
    return found


def codes(strategy: str, exchanges: Sequence[Exchange], **run: object) -> list[str]:
    return judged(strategy, exchanges, **run).codes


CRITIQUE = exchange("critique", "1 is short, 2 is wrong, 3 is right", tokens=212)
FINAL = exchange("final", "the answer")


def test_a_mixture_of_three_candidates() -> None:
    found = judged("moa", [candidates("a", "b", "c"), CRITIQUE, FINAL])
    assert (found.effect, found.codes, found.samples) == ("full", [], (3, 3))
    assert found.evidence == (
        "3 of 3 distinct candidates",
        "critique 212 tokens",
        "final written from them",
    )


@pytest.mark.parametrize(
    ("exchanges", "expected"),
    [
        ([candidates("a", asked=3), CRITIQUE, FINAL], ["candidates_missing"]),
        ([candidates("a", "", "c"), CRITIQUE, FINAL], ["candidates_missing"]),
        ([candidates("a", "a", "a"), CRITIQUE, FINAL], ["candidates_identical"]),
        ([candidates("a b", " a b\n", "c"), CRITIQUE, FINAL], ["candidates_repeated"]),
        (
            [candidates("a", "b", "c", finish="length"), CRITIQUE, FINAL],
            ["candidates_truncated"],
        ),
        (
            [candidates("a", "b", "c"), exchange("critique", "x", finish="length"), FINAL],
            ["critique_truncated"],
        ),
        ([candidates("a", "b", "c"), exchange("critique", ""), FINAL], ["critique_empty"]),
        (
            [candidates("a", "b", "c"), exchange("critique", "x", cut=True), FINAL],
            ["critique_cut"],
        ),
        (
            [candidates("a", "b", "c"), CRITIQUE, exchange("final", "x", finish="length")],
            ["final_truncated"],
        ),
        ([candidates("a", "b", "c"), CRITIQUE, exchange("final", "")], ["final_empty"]),
        ([candidates("a", "b", "c"), CRITIQUE, exchange("final", "x", cut=True)], ["final_cut"]),
        # reasoning that took all the tokens of the step
        (
            [candidates("a", "b", "c"), exchange("critique", "", finish="length"), FINAL],
            ["critique_truncated"],
        ),
        (
            [candidates("<think>a</think>x", "<think>b</think>x", "x"), CRITIQUE, FINAL],
            ["candidates_identical"],
        ),
    ],
)
def test_moa(exchanges: list[Exchange], expected: list[str]) -> None:
    assert codes("moa", exchanges) == expected


def test_the_fallback_of_moa_counts_its_calls_as_one_set() -> None:
    """It asks one by one where `n` is refused."""
    failed = Exchange("candidate", 3, failed=True, calls=[0])
    single = [exchange("candidate", text) for text in "abc"]
    found = judged("moa", [failed, *single, CRITIQUE, FINAL])
    assert (found.samples, found.codes, found.effect) == ((3, 3), ["step_failed"], "weak")
    assert codes("moa", [failed, *single[:2], CRITIQUE, FINAL])[0] == "candidates_missing"


@pytest.mark.parametrize(
    ("rated", "expected"),
    [
        (("7", "8", "3"), []),
        (("7", "7", "3"), []),
        (("7", "7", "7"), ["ratings_equal"]),
        (("8/10", "7/10", "3/10"), ["ratings_unreadable"]),
        (("7", "a paragraph", "3"), ["ratings_partial"]),
        (("7", "a paragraph", "7"), ["ratings_unreadable"]),
        (("", "", ""), ["ratings_unreadable"]),
    ],
)
def test_bon(rated: tuple[str, ...], expected: list[str]) -> None:
    assert codes("bon", [candidates("a", "b", "c"), *ratings(*rated)]) == expected


def test_the_ratings_are_shown_as_they_were_read() -> None:
    found = judged("bon", [candidates("a", "b", "c"), *ratings("7", "x", "3.5")])
    assert found.ratings == (7, None, 3.5)
    assert "ratings 7, none, 3.5" in found.evidence


def test_a_rating_that_the_limit_ended_counts_as_none() -> None:
    cut = exchange("rating", "8", finish="length")
    exchanges = [candidates("a", "b", "c"), cut, *ratings("7", "3")]
    assert codes("bon", exchanges) == ["ratings_partial"]


@pytest.mark.parametrize(
    ("texts", "votes", "expected"),
    [
        (("4", "four", "It is 4", "5", "4!"), 4, []),
        (("a", "b", "c", "d", "e"), 1, ["no_agreement"]),
        (("a", "", "a", "", "b"), 2, ["samples_empty"]),
        # short answers may well be equal
        (("4", "4", "4", "4", "4"), 5, []),
        (("a long text " * 9,) * 5, 5, ["candidates_identical"]),
    ],
)
def test_self_consistency(texts: tuple[str, ...], votes: int, expected: list[str]) -> None:
    found = judged("self_consistency", samples(*texts), agreement=(votes, 5))
    assert found.codes == expected
    assert found.agreement == (votes, 5)


def test_copies_from_a_cache_have_one_id() -> None:
    cached = samples(*["4"] * 5, id="chatcmpl-1")
    assert codes("self_consistency", cached, agreement=(5, 5)) == ["candidates_identical"]


@pytest.mark.parametrize(
    ("step", "changed", "expected"),
    [
        ("observations", exchange("observations", ""), ["observations_empty"]),
        ("observations", exchange("observations", "x", finish="length"), ["observations_empty"]),
        ("observations", exchange("observations", "x", cut=True), ["observations_cut"]),
        ("derived observations", exchange("derived observations", ""), ["observations_empty"]),
        ("solution", exchange("solution", "x", finish="length"), ["solution_truncated"]),
        ("solution", exchange("solution", ""), ["solution_truncated"]),
        ("solution", exchange("solution", "x", cut=True), ["solution_cut"]),
        ("final", exchange("final", "x", finish="length"), ["final_truncated"]),
    ],
)
def test_plansearch(step: str, changed: Exchange, expected: list[str]) -> None:
    exchanges = [changed if one.step == step else one for one in OBSERVED]
    found = judged("plansearch", exchanges)
    assert found.codes == expected
    assert found.findings[0].step == step


@pytest.mark.parametrize(
    ("text", "finish", "expected"),
    [
        ("<thinking>a<reflection>b</reflection></thinking><output>4</output>", "stop", []),
        ("<thinking>a</thinking><output>4</output>", "stop", ["reflection_missing"]),
        ("4", "stop", ["reflection_missing", "output_missing"]),
        ("<thinking><reflection>", "length", ["final_truncated"]),
        ("<reflection></reflection><output>4", "length", ["final_cut"]),
        ("", "stop", ["final_empty"]),
    ],
)
def test_cot_reflection(text: str, finish: str, expected: list[str]) -> None:
    assert codes("cot_reflection", [exchange("final", text, finish=finish)]) == expected


def test_re2() -> None:
    assert codes("re2", [exchange("final", "4")]) == []
    assert codes("re2", [exchange("final", "4", finish="length")]) == ["final_cut"]
    assert codes("re2", [exchange("final", "")]) == ["final_empty"]


@pytest.mark.parametrize(
    ("exchanges", "expected"),
    [
        ([exchange("call", "a"), exchange("call", "b", question=1)], []),
        ([exchange("call", "a"), Exchange("call", failed=True)], ["step_failed"]),
        ([exchange("call", "a", finish="length")], ["step_truncated"]),
        ([exchange("call", "")], ["step_empty"]),
        ([exchange("call", "long " * 30, "long " * 30)], ["candidates_identical"]),
    ],
)
def test_any_other_strategy(exchanges: list[Exchange], expected: list[str]) -> None:
    assert codes("mcts", exchanges) == expected


def test_nothing_is_judged_without_a_strategy_or_calls() -> None:
    assert judgement.judge("none", [Run([FINAL])]) is None
    assert judgement.judge("moa", [Run()]) is None
    assert judgement.judge("moa", []) is None


def test_several_runs_show_the_codes_of_all() -> None:
    good = Run([candidates("a", "b", "c"), CRITIQUE, FINAL])
    bad = Run([candidates("a", "a", "a"), CRITIQUE, FINAL])
    found = judgement.judge("moa", [good, bad, good])
    assert found is not None
    assert (found.codes, found.effect, found.samples) == (["candidates_identical"], "none", (1, 3))
    assert found.evidence[0] == "3 runs"


def test_a_finding_names_its_calls() -> None:
    failed = Exchange("critique", samples=[Sample("")], calls=[3, 4])
    found = judged("moa", [candidates("a", "b", "c"), failed, FINAL])
    assert [(one.code, one.step, one.calls) for one in found.findings] == [
        ("critique_empty", "critique", (3, 4))
    ]


def test_degraded_codes_come_first_and_every_code_is_explained() -> None:
    levels = [code.level for code in CODES.values()]
    assert levels == sorted(levels)
    for name, code in CODES.items():
        assert code.what[0].isupper(), name
        assert not code.what.endswith("."), name
        assert code.fix, name


@settings(max_examples=200)
@given(st.data())
def test_a_healthy_conversation_yields_no_code(data: st.DataObject) -> None:
    strategy = data.draw(
        st.sampled_from(
            ("moa", "bon", "self_consistency", "plansearch", "re2", "cot_reflection", "mcts")
        )
    )
    run = data.draw(healthy(strategy))
    found = judgement.judge(strategy, [run])
    assert found is not None
    assert (found.codes, found.effect) == ([], "full")
