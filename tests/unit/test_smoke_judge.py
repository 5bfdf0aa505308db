"""What an answer proves: every reason to fail, and the one way to pass."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.deployment.config import Config
from optictl.deployment.config_sections import Effect
from optictl.guard import GUARD_VERSION
from optictl.guard.error_texts import ERROR_TEXTS
from optictl.guard.judgement import CODES
from optictl.host.network import Response
from optictl.proof import effect, evidence

CONFIG = Config(base_models=("jerry-xl", "tom"), publish={"boost": "bon-tom"})
PROOF = {
    "x-optillm-guard": GUARD_VERSION,
    "x-optillm-strategy": "moa",
    "x-optillm-upstream-calls": "3",
    "x-optillm-upstream-completions": "5",
    "x-optillm-upstream-failures": "0",
    "x-optillm-upstream-models": "jerry-xl",
    "x-optillm-effect": "full",
    "x-optillm-samples": "3/3",
    "x-optillm-evidence": "3 of 3 distinct candidates; final written from them",
}
USAGE = {"prompt_tokens": 100, "completion_tokens": 50, "total_tokens": 150}


def answer(
    text: Any = "Five cents.",
    *,
    status: int = 200,
    usage: Any = None,
    without: str = "",
    seconds: float = 1.25,
    **headers: str,
) -> Response:
    """A good answer to moa-jerry-xl, except for what is given. Header names without x-optillm-."""
    given = {
        **PROOF,
        **{f"x-optillm-{name.replace('_', '-')}": value for name, value in headers.items()},
    }
    given.pop(f"x-optillm-{without}", None)
    body = {
        "choices": [{"message": {"role": "assistant", "content": text}}],
        "usage": usage or USAGE,
    }
    return Response(status, json.dumps(body), given, seconds=seconds)


def found(given: Response, model: str = "moa-jerry-xl") -> str:
    """Why this answer fails."""
    result = evidence.judge(model, CONFIG, given)
    assert result.status == "fail", result
    assert result.remedy
    return result.found


class TestPass:
    def test_the_data_is_the_contract(self) -> None:
        result = evidence.judge("moa-jerry-xl", CONFIG, answer())
        assert result.status == "pass"
        assert result.id == "moa-jerry-xl"
        assert result.data == {
            "strategy": "moa",
            "base_model": "jerry-xl",
            "upstream_calls": 3,
            "upstream_models": ["jerry-xl"],
            "upstream_failures": 0,
            "latency_ms": 1250,
            "tokens": {"prompt": 100, "completion": 50, "total": 150},
            "answer": "Five cents.",
            "effect": "full",
            "codes": [],
            "fixed": [],
            "samples": {"distinct": 3, "asked": 3},
            "ratings": None,
            "agreement": None,
            "evidence": "3 of 3 distinct candidates; final written from them",
        }
        assert (result.remedy, result.cause, result.fault) == ("", "", "")

    def test_it_says_what_it_cost(self) -> None:
        result = evidence.judge("moa-jerry-xl", CONFIG, answer(), plain={"prompt": 5, "total": 20})
        assert result.found == (
            "3 of 3 distinct candidates; final written from them; "
            "3 calls, 5 completions, 150 tokens, 1.25 s, 7.5 times a plain call"
        )
        assert (
            "times"
            not in evidence.judge(
                "moa-jerry-xl", CONFIG, answer(), plain={"prompt": 0, "total": 0}
            ).found
        )

    def test_a_strategy_of_one_call_is_seen_by_its_prompt(self) -> None:
        one = Config(strategies=("re2",))
        given = answer(strategy="re2", upstream_calls="1", upstream_completions="1")
        assert evidence.judge("re2-jerry-xl", one, given).status == "pass"
        assert (
            evidence.judge("re2-jerry-xl", one, given, plain={"prompt": 50, "total": 60}).status
            == "pass"
        )
        plain = evidence.judge("re2-jerry-xl", one, given, plain={"prompt": 97, "total": 110})
        assert (plain.status, plain.found) == (
            "fail",
            "a prompt of 100 tokens, 97 without a strategy: no strategy ran",
        )
        assert (
            evidence.judge(
                "re2-jerry-xl", one, answer(strategy="re2", upstream_completions="0")
            ).status
            == "fail"
        )

    def test_a_published_name_is_judged_by_what_it_stands_for(self) -> None:
        given = answer(strategy="bon", upstream_models="tom")
        result = evidence.judge("boost", CONFIG, given)
        assert (result.status, result.id, result.title) == ("pass", "boost", "bon on tom")

    def test_through_litellm_which_puts_a_word_before_the_headers(self) -> None:
        direct = answer()
        headers = {f"llm_provider-{name}": value for name, value in direct.headers.items()}
        through = Response(200, direct.text, headers, seconds=1.25)
        assert evidence.judge("moa-jerry-xl", CONFIG, through) == evidence.judge(
            "moa-jerry-xl", CONFIG, direct
        )


class TestFail:
    def test_no_answer_at_all(self) -> None:
        assert found(Response(0, error="Connection refused")) == "Connection refused"

    def test_an_error_in_the_servers_own_words(self) -> None:
        text = json.dumps(
            {
                "error": {
                    "message": "no such model",
                    "type": "invalid_request_error",
                    "code": "model",
                }
            }
        )
        assert found(Response(400, text)) == "400: no such model"

    @pytest.mark.parametrize(
        "text", ["gateway is tired", json.dumps({"error": "gateway is tired"})]
    )
    def test_an_error_in_another_shape(self, text: str) -> None:
        assert found(Response(502, text)) == "502: gateway is tired"

    def test_an_error_without_words(self) -> None:
        assert found(Response(500)) == "500: no text"

    def test_an_optillm_without_the_guard_proves_nothing(self) -> None:
        bare = Response(200, answer().text, {"content-type": "application/json"})
        assert "without the guard" in found(bare)

    def test_another_strategy_ran(self) -> None:
        assert found(answer(strategy="bon")) == "bon ran, not moa"

    def test_no_strategy_ran(self) -> None:
        assert found(answer(strategy="none", upstream_completions="1")) == (
            "none ran, not moa; 1 completion(s) sampled upstream: no strategy ran"
        )

    @pytest.mark.parametrize("number", ["0", "1", "", "many", "-3", "²"])
    def test_fewer_than_two_completions(self, number: str) -> None:
        assert "no strategy ran" in found(answer(upstream_completions=number))

    @pytest.mark.parametrize(
        ("used", "told"), [("tom", "tom"), ("jerry-xl,tom", "jerry-xl, tom"), ("", "no model")]
    )
    def test_another_model_was_asked(self, used: str, told: str) -> None:
        assert found(answer(upstream_models=used)) == f"upstream calls used {told}, not jerry-xl"

    def test_a_call_failed(self) -> None:
        assert found(answer(upstream_failures="2")) == "2 of 3 upstream calls failed"

    @pytest.mark.parametrize(
        "text",
        [*ERROR_TEXTS, ERROR_TEXTS[0] + ": 429", f"<think>\n{ERROR_TEXTS[3]} 503", "", None],
    )
    def test_the_answer_is_an_error_text(self, text: str | None) -> None:
        assert "the answer is an error text" in found(answer(text))

    def test_a_word_about_errors_is_no_error_text(self) -> None:
        assert (
            evidence.judge(
                "moa-jerry-xl", CONFIG, answer("Error: is what you typed. The ball costs 5 cents.")
            ).status
            == "pass"
        )

    def test_every_reason_is_told(self) -> None:
        bad = answer(
            ERROR_TEXTS[0],
            strategy="bon",
            upstream_completions="1",
            upstream_models="tom",
            upstream_failures="3",
        )
        assert found(bad).count("; ") == 4

    @pytest.mark.parametrize("model", ["jerry-xl", "nosuch", "", "mcts-jerry-xl"])
    def test_a_model_that_is_not_served(self, model: str) -> None:
        assert evidence.judge(model, CONFIG, answer()).status == "fail"

    @pytest.mark.parametrize("name", ["strategy", "upstream-completions", "upstream-models"])
    def test_a_proof_that_is_not_whole(self, name: str) -> None:
        assert evidence.judge("moa-jerry-xl", CONFIG, answer(without=name)).status == "fail"


class TestEffect:
    """What the guard saw of the effect decides, where the strategy ran."""

    def test_without_effect_it_fails_with_code_meaning_and_fix(self) -> None:
        given = answer(effect="none", degraded="critique_truncated")
        result = evidence.judge("moa-jerry-xl", CONFIG, given)
        assert (result.status, result.fault) == ("fail", evidence.NO_EFFECT)
        assert result.found == (
            "the critique reached its token limit, and OptiLLM put a fixed sentence in its place"
            " (critique_truncated)"
        )
        assert result.remedy == CODES["critique_truncated"].fix
        assert result.data is not None
        assert result.data["codes"] == ["critique_truncated"]
        assert evidence.has_run(result)

    @pytest.mark.parametrize("code", CODES)
    def test_every_code_is_explained(self, code: str) -> None:
        degraded = CODES[code].level == "degraded"
        given = answer(effect="none" if degraded else "weak", degraded=code)
        result = evidence.judge("moa-jerry-xl", CONFIG, given)
        assert result.status == ("fail" if degraded else "warn")
        assert f"({code})" in result.found
        assert result.remedy

    def test_a_part_of_the_effect_is_a_warning_with_the_evidence(self) -> None:
        given = answer(effect="weak", degraded="candidates_repeated", samples="2/3")
        result = evidence.judge("moa-jerry-xl", CONFIG, given)
        assert (result.status, result.fault) == ("warn", "")
        assert result.found.startswith(
            "some candidates are the same text (candidates_repeated); 3 of 3 distinct"
        )
        assert "3 calls" in result.found
        assert result.remedy == CODES["candidates_repeated"].fix

    def test_a_lesser_loss_does_not_hide_the_greater(self) -> None:
        codes = "candidates_identical,step_truncated"
        result = evidence.judge("moa-jerry-xl", CONFIG, answer(effect="none", degraded=codes))
        assert result.found.endswith("(candidates_identical)")
        assert result.remedy == CODES["candidates_identical"].fix
        assert result.data is not None
        assert result.data["codes"] == codes.split(",")

    def test_codes_count_without_the_level(self) -> None:
        given = answer(without="effect", degraded="ratings_equal")
        assert evidence.judge("moa-jerry-xl", CONFIG, given).status == "fail"

    @pytest.mark.parametrize(("level", "status"), [("none", "fail"), ("weak", "warn")])
    def test_a_code_of_a_newer_guard_is_named(self, level: str, status: str) -> None:
        given = answer(effect=level, degraded="from_the_future")
        result = evidence.judge("moa-jerry-xl", CONFIG, given)
        assert (result.status, result.remedy) == (
            status,
            "update optictl: the active release is newer",
        )
        assert "(from_the_future)" in result.found

    @pytest.mark.parametrize(("level", "status"), [("none", "fail"), ("weak", "warn")])
    def test_a_level_without_a_code_is_no_pass(self, level: str, status: str) -> None:
        result = evidence.judge("moa-jerry-xl", CONFIG, answer(effect=level))
        assert result.status == status
        assert result.found

    def test_what_did_not_run_comes_first(self) -> None:
        given = answer(effect="none", degraded="candidates_missing", upstream_failures="1")
        result = evidence.judge("moa-jerry-xl", CONFIG, given)
        assert result.found.startswith("1 of 3 upstream calls failed; the upstream returned")
        assert result.remedy.startswith("optictl check names what is wrong; keep effect.samples")
        assert result.fault == ""
        assert not evidence.has_run(result)

    def test_an_error_says_what_was_lost(self) -> None:
        text = json.dumps({"error": {"message": "no answer", "code": "strategy_failed"}})
        headers = {**PROOF, "x-optillm-effect": "none", "x-optillm-degraded": "samples_empty"}
        result = evidence.judge("moa-jerry-xl", CONFIG, Response(502, text, headers))
        assert result.found.startswith("502: no answer; a sample was empty")

    def test_an_older_release_is_not_judged_and_says_so(self) -> None:
        result = evidence.judge("moa-jerry-xl", CONFIG, answer(without="effect", evidence=""))
        assert result.status == "pass"
        assert result.found.endswith("; effect not judged: the release is older than this optictl")
        assert result.data is not None
        assert result.data["effect"] == ""

    def test_facts_are_data(self) -> None:
        given = answer(ratings="[7, 8.5, null]", agreement="4/5", fixed="samples,ratings")
        data = evidence.judge("moa-jerry-xl", CONFIG, given).data
        assert data is not None
        assert data["ratings"] == [7, 8.5, None]
        assert data["agreement"] == {"agreeing": 4, "samples": 5}
        assert data["fixed"] == ["samples", "ratings"]

    @pytest.mark.parametrize(
        "ratings", ["[NaN]", "[1e999]", "[true]", '["7"]', "{}", "7", "[", "[" * 100_000, ""]
    )
    def test_ratings_that_are_none_are_left_out(self, ratings: str) -> None:
        data = evidence.judge("moa-jerry-xl", CONFIG, answer(ratings=ratings)).data
        assert data is not None
        assert data["ratings"] is None


class TestDeterministic:
    """An upstream that ignores temperature gives copies, and a mixture of copies is none."""

    def test_it_is_the_cause_where_the_effect_is_lost(self) -> None:
        given = answer(effect="none", degraded="candidates_identical", samples="1/3")
        result = evidence.judge("moa-jerry-xl", CONFIG, given)
        assert result.cause.startswith("all 3 samples are the same text: the upstream is determin")
        assert "equal samples are no mixture" in result.cause
        assert "deterministic" not in result.found

    def test_it_is_said_where_the_samples_only_agree(self) -> None:
        given = answer(samples="1/5", agreement="5/5")
        result = evidence.judge("moa-jerry-xl", CONFIG, given)
        assert (result.status, result.cause) == ("pass", "")
        assert "all 5 samples are the same text: the upstream is deterministic" in result.found

    @pytest.mark.parametrize("samples", ["2/3", "3/3", "1/1", "0/3", "0/0", "1/", "x", ""])
    def test_samples_that_differ_or_are_single_say_nothing(self, samples: str) -> None:
        result = evidence.judge("moa-jerry-xl", CONFIG, answer(samples=samples))
        assert "deterministic" not in result.found

    @pytest.mark.parametrize("code", ["candidates_missing", "samples_empty", "step_failed"])
    def test_too_few_samples_are_another_cause(self, code: str) -> None:
        given = answer(effect="none", degraded=code, samples="1/3")
        result = evidence.judge("moa-jerry-xl", CONFIG, given)
        assert "deterministic" not in result.found + result.cause


class TestTable:
    """The codes in words."""

    def test_words_for_people(self) -> None:
        for code, meaning in CODES.items():
            assert re.fullmatch("[a-z_]+", code)
            assert meaning.what[0].isupper(), code
            assert not meaning.what.endswith("."), code
            assert not meaning.fix.endswith("."), code
            assert len(meaning.what.split()) <= 20, code
            assert len(meaning.fix) <= 120, code

    def test_a_fix_names_keys_that_exist(self) -> None:
        named = {
            key for meaning in CODES.values() for key in re.findall(r"effect\.(\w+)", meaning.fix)
        }
        assert named >= {"samples", "budgets", "ratings", "votes", "caches", "critique_tokens"}
        assert named <= set(Effect.model_fields)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["message", "content", "x"]), inner, max_size=3)
    ),
    max_leaves=8,
)
_BODY = st.fixed_dictionaries(
    {},
    optional={
        "choices": _JSON,
        "usage": st.dictionaries(st.sampled_from(list(USAGE)), _JSON) | _JSON,
        "error": _JSON,
    },
)


@given(
    status=st.sampled_from([0, 200, 200, 200, 400, 500]),
    body=_BODY | _JSON,
    headers=st.dictionaries(
        st.sampled_from([*PROOF, *(f"x-optillm-{name}" for name in effect.HEADERS)]),
        st.text(alphabet=st.characters(max_codepoint=255), max_size=6),
    ),
)
def test_no_server_can_make_it_crash_or_pass(
    status: int, body: Any, headers: dict[str, str]
) -> None:
    result = evidence.judge("moa-jerry-xl", CONFIG, Response(status, json.dumps(body), headers))
    assert result.status == "fail"
    json.dumps(result.as_dict())


_WORDS = st.sampled_from([*CODES, "later", "", "NOT,A;CODE", "full", "weak", "none", "1/3", "[7]"])


@given(st.fixed_dictionaries({name: _WORDS | st.none() for name in effect.HEADERS}))
def test_any_headers_lead_to_one_verdict_that_explains_itself(
    headers: dict[str, str | None],
) -> None:
    read = effect.read(headers)
    json.dumps(read.as_dict(), allow_nan=False)
    assert (read.status == "pass") == (not read.words)
    assert read.status == "fail" or not any(
        CODES[code].level == "degraded" for code in read.codes if code in CODES
    )
    assert set(read.telling) <= set(read.codes)
