"""Records, what is left of a run, what the next request may cost, and what each model was worth."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.deployment.config import Config
from optictl.errors import BudgetTooSmall, UnknownModel
from optictl.host.network import Response
from optictl.requests.compare import page, questions, run, summary
from optictl.requests.compare.run import Comparison, Request
from optictl.requests.compare.summary import (
    Beside,
    Header,
    Prices,
    Record,
    RecordsError,
    Row,
    Subject,
)

PLAIN, MOA, BON = (
    Subject("jerry-xl", "", "jerry-xl"),
    Subject("moa-jerry-xl", "moa", "jerry-xl"),
    Subject("bon-jerry-xl", "bon", "jerry-xl"),
)
SUBJECTS = [PLAIN, MOA]
QUESTIONS = questions.parse(
    "\n".join(f'{{"id": "q{n}", "prompt": "{"x" * 300}", "expected": "yes"}}' for n in range(12))
)
HEADER = Header("abc", None, ("jerry-xl", "moa-jerry-xl"))


def record(model: str, question: str, right: bool = True, **fields: Any) -> Record:
    given = {
        "error": "",
        "seconds": 1.0,
        "calls": 1,
        "prompt_tokens": 60,
        "completion_tokens": 40,
        **fields,
    }
    return Record(question, model, right, **given)


def answered(plain: str, moa: str) -> list[Record]:
    """Per question: right (+), wrong (-), failed (!) or not asked (blank), for each."""
    found = []
    for model, signs in (("jerry-xl", plain), ("moa-jerry-xl", moa)):
        for number, sign in enumerate(signs):
            if sign != " ":
                found.append(
                    record(model, f"q{number}", sign == "+", error="no" if sign == "!" else "")
                )
    return found


def worth(plain: str, moa: str, prices: Prices | None = None) -> Row:
    return summary.rows(SUBJECTS, QUESTIONS, answered(plain, moa), prices)[1]


class TestFile:
    def test_it_is_read_as_it_was_written(self) -> None:
        records = [
            record("jerry-xl", "q1"),
            record("moa-jerry-xl", "q1", False, error="502: \u2028 no", answer="a\nb"),
        ]
        text = "".join(f"{line}\n" for line in (HEADER.line(), *(r.line() for r in records)))
        assert summary.read(text) == (HEADER, records)

    @given(st.integers(0))
    def test_a_torn_last_line_does_not_count(self, cut: int) -> None:
        whole, last = (
            f"{HEADER.line()}\n{record('jerry-xl', 'q1').line()}\n",
            f"{record('jerry-xl', 'q2').line()}",
        )
        _, records = summary.read(whole + last[: cut % (len(last) + 1)])
        assert [r.question for r in records] == ["q1"]

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "x",
            "{}\n",
            "[]\n",
            '"a"\n',
            "null\n",
            '{"optictl_compare": 2}\n',
            '{"optictl_compare": 1}\n',
        ],
    )
    def test_another_file_is_refused(self, text: str) -> None:
        with pytest.raises(RecordsError, match="does not start"):
            summary.read(text)

    @pytest.mark.parametrize("line", ["", "{", "{}", "[]", '{"question": 1}'])
    def test_a_broken_line_is_named(self, line: str) -> None:
        with pytest.raises(RecordsError, match="line 3"):
            summary.read(f"{HEADER.line()}\n{record('jerry-xl', 'q1').line()}\n{line}\n")

    def test_no_answer_is_in_a_line_unless_it_is_kept(self) -> None:
        assert "answer" not in json.loads(record("jerry-xl", "q1").line())

    def test_what_is_not_known_is_not_in_a_line(self) -> None:
        """A file without samples and effects is read by older versions, too."""
        old = {"question", "model", "right", "error", "seconds", "calls"}
        old |= {"prompt_tokens", "completion_tokens"}
        assert set(json.loads(record("jerry-xl", "q1").line())) == old

    def test_effects_and_samples_are_read_as_they_were_written(self) -> None:
        records = [
            record("moa-jerry-xl", "q1", effect="none", codes=("critique_empty",), completions=5),
            record("jerry-xl", "q1", sample=3, final="abc"),
        ]
        text = "".join(f"{line}\n" for line in (HEADER.line(), *(r.line() for r in records)))
        assert summary.read(text) == (HEADER, records)

    def test_a_file_of_an_older_version_is_read(self) -> None:
        line = (
            '{"question": "q1", "model": "moa-jerry-xl", "right": true, "error": "",'
            ' "seconds": 1.0, "calls": 3, "prompt_tokens": 60, "completion_tokens": 40}'
        )
        (old,) = summary.read(f"{HEADER.line()}\n{line}\n")[1]
        assert (old.effect, old.codes, old.sample, old.final) == (None, (), 1, None)

    @pytest.mark.parametrize("codes", ["5", "true"])
    def test_codes_that_are_none_are_a_broken_line(self, codes: str) -> None:
        line = record("moa-jerry-xl", "q1").line().replace("}", f', "codes": {codes}}}')
        with pytest.raises(RecordsError, match="line 2"):
            summary.read(f"{HEADER.line()}\n{line}\n")


class TestWhatIsLeft:
    def test_question_by_question_and_the_plain_model_first(self) -> None:
        left = summary.left(SUBJECTS, QUESTIONS, answered("++", "+"))
        assert [(s.model, q.id) for s, q in left[:3]] == [
            ("moa-jerry-xl", "q1"),
            ("jerry-xl", "q2"),
            ("moa-jerry-xl", "q2"),
        ]
        assert len(left) == 21

    def test_what_failed_is_asked_again(self) -> None:
        assert ("jerry-xl", "q0") in [
            (s.model, q.id) for s, q in summary.left(SUBJECTS, QUESTIONS, answered("!", "+"))
        ]
        again = [*answered("!", "+"), record("jerry-xl", "q0")]
        assert ("jerry-xl", "q0") not in [
            (s.model, q.id) for s, q in summary.left(SUBJECTS, QUESTIONS, again)
        ]


class TestBudget:
    def expected(self, subject: Subject, records: list[Record]) -> int:
        return summary.expected_tokens(subject, QUESTIONS[0], SUBJECTS, records)

    def test_as_much_as_the_dearest_so_far(self) -> None:
        records = [
            record("moa-jerry-xl", "q0"),
            record("moa-jerry-xl", "q1", prompt_tokens=900),
            record("jerry-xl", "q0"),
        ]
        assert self.expected(MOA, records) == 940
        assert self.expected(PLAIN, records) == 100

    def test_before_the_first_of_a_strategy_a_multiple_of_a_plain_one(self) -> None:
        assert self.expected(MOA, [record("jerry-xl", "q0")]) == 1000

    def test_before_the_first_of_all_its_text_and_an_answer(self) -> None:
        assert self.expected(PLAIN, []) == 600
        assert self.expected(MOA, []) == 6000


class TestRows:
    def test_counts(self) -> None:
        plain, moa = summary.rows(SUBJECTS, QUESTIONS, answered("+-++!", "++-+"), Prices(2, 10))
        assert (plain.right, plain.answered, plain.failed, plain.left_out) == (3, 4, 1, 7)
        assert (moa.right, moa.answered, moa.failed, moa.left_out) == (3, 4, 0, 8)
        assert (plain.calls, plain.prompt_tokens, plain.completion_tokens) == (5, 300, 200)
        assert plain.cost == pytest.approx(300 * 2 / 1e6 + 200 * 10 / 1e6)
        assert plain.beside is None
        assert moa.beside is not None
        assert (moa.beside.pairs, moa.beside.gained, moa.beside.lost) == (4, 1, 1)

    def test_seconds_are_those_of_answers_and_tokens_those_of_all(self) -> None:
        records = [
            record("jerry-xl", "q0", seconds=1),
            record("jerry-xl", "q1", seconds=3),
            record("jerry-xl", "q2", error="timed out", seconds=600),
            record("jerry-xl", "q2", seconds=2),
        ]
        (row,) = summary.rows([PLAIN], QUESTIONS, records, None)
        assert (row.p50, row.failed, row.answered, row.tokens, row.cost) == (2, 0, 3, 400, None)

    @pytest.mark.parametrize(
        ("plain", "moa", "verdict"),
        [
            ("------------", "++++++------", "better"),
            ("++++++------", "------------", "worse"),
            ("------------", "+++++-------", "within noise"),
            ("++++++++++++", "++++++++++++", "within noise"),
            ("------", "!!!!!!", ""),
            ("      ", "++++++", ""),
            # a question that one of them failed at tells nothing
            ("------!-----", "++++++------", "better"),
            ("-----!------", "++++++------", "within noise"),
        ],
    )
    def test_verdicts(self, plain: str, moa: str, verdict: str) -> None:
        row = worth(plain, moa)
        assert row.beside is not None
        assert row.beside.verdict == verdict

    def test_many_strategies_raise_the_bar(self) -> None:
        """Six to none is no noise for one strategy, and is for one of two."""
        alone = answered("-" * 12, "++++++------")
        also = [record("bon-jerry-xl", f"q{n}", False) for n in range(12)]
        _, moa, _ = summary.rows([PLAIN, MOA, BON], QUESTIONS, [*alone, *also], None)
        assert moa.beside is not None
        assert moa.beside.verdict == "within noise"

    def test_each_strategy_is_held_against_its_own_base_model(self) -> None:
        tom, moa_tom = Subject("tom", "", "tom"), Subject("moa-tom", "moa", "tom")
        records = [*answered("--", "++"), record("tom", "q0"), record("moa-tom", "q0")]
        row = summary.rows([PLAIN, MOA, tom, moa_tom], QUESTIONS, records, None)[3]
        assert row.beside is not None
        assert (row.beside.pairs, row.beside.gained, row.beside.lost) == (1, 0, 0)

    def test_in_words(self) -> None:
        assert summary.sentences(worth("------------", "++++++------")) == [
            "moa: better. Of 12 questions, right on 6 that the plain model had wrong, "
            "wrong on 0 that it had right: "
            "p = 0.031, +15 to +75 percentage points at 95 %, 100 tokens per question"
        ]
        # the interval alone would exclude that there is none: no sentence says both
        (text,) = summary.sentences(worth("------------", "+++++-------"))
        assert "within noise" in text
        assert "p = 0.062, 0 to +68 percentage points" in text
        (text,) = summary.sentences(worth(" ", "+"))
        assert text.startswith("moa: no question has an answer of both")

    def test_as_json(self) -> None:
        item = json.loads(json.dumps(worth("+-", "++").as_dict()))
        assert (item["id"], item["status"], item["data"]["strategy"]) == (
            "moa-jerry-xl",
            "pass",
            "moa",
        )
        assert set(item["data"]["beside"]) == {
            "pairs",
            "gained",
            "lost",
            "p",
            "difference",
            "verdict",
        }
        assert (worth("+", "!").as_dict()["status"], worth("+", " ").as_dict()["status"]) == (
            "fail",
            "skip",
        )


class TestEffect:
    """How many answers of a strategy had an effect, of those that were judged."""

    def row(self, *effects: str | None) -> Row:
        records = [
            record(
                "moa-jerry-xl",
                f"q{n}",
                effect=effect,
                codes=("critique_empty",) if effect == "none" else (),
                error="no" if effect == "failed" else "",
            )
            for n, effect in enumerate(effects)
        ]
        return summary.rows(SUBJECTS, QUESTIONS, records, None)[1]

    def test_a_part_of_it_counts_and_what_failed_was_not_judged(self) -> None:
        row = self.row("full", "weak", "none", None, "failed", "none")
        assert (row.effective, row.judged, row.lost) == (2, 4, {"critique_empty": 2})
        assert summary.sentences(row)[-1] == (
            "moa: 2 of 4 answers with effect; the others are no better than plain ones "
            "(critique_empty 2)"
        )
        data = row.as_dict()["data"]
        assert (data["effective"], data["judged"]) == (2, 4)

    def test_all_with_effect_need_no_words(self) -> None:
        assert len(summary.sentences(self.row("full", "weak"))) == 1

    def test_an_older_release_judges_nothing(self) -> None:
        row = self.row(None, None)
        assert (row.effective, row.judged, row.lost) == (0, 0, {})


def sampled(question: str, *finals: str | None, first: str | None = "a") -> list[Record]:
    """The plain model's answer and its further samples; "yes" is right, None failed."""
    records = [record("jerry-xl", question, first == "yes", final=first)]
    for number, final in enumerate(finals, start=2):
        records.append(
            record(
                "jerry-xl",
                question,
                final == "yes",
                sample=number,
                final=final,
                error="" if final is not None else "no",
                seconds=float(number),
            )
        )
    return records


class TestBaseline:
    """The plain model asked as often as a strategy asks it, best by majority."""

    SUBJECTS = (PLAIN, MOA, BON)

    def test_as_often_as_its_strategies_ask_it(self) -> None:
        assert [s.samples for s in summary.baselines(self.SUBJECTS, [])] == [5, 6]
        records = [
            record("moa-jerry-xl", "q0", completions=3),
            record("moa-jerry-xl", "q1", completions=3),
            record("moa-jerry-xl", "q2", completions=9),
            record("moa-jerry-xl", "q3", completions=9, error="no"),
            record("moa-jerry-xl", "q4", completions=9, error="no"),
        ]
        assert [s.samples for s in summary.baselines([PLAIN, MOA], records)] == [3]
        re2, own = Subject("re2-jerry-xl", "re2", "jerry-xl"), Subject("my-t", "my", "t")
        assert summary.baselines([PLAIN, re2], []) == []
        assert [s.label for s in summary.baselines([Subject("t", "", "t"), own], [])] == ["t x5"]

    def test_the_first_sample_is_the_plain_answer(self) -> None:
        left = summary.samples_left([PLAIN, MOA], QUESTIONS[:2], sampled("q0"))
        assert [(s.model, q.id, n) for s, q, n in left] == [
            *(("jerry-xl", "q0", n) for n in (2, 3, 4, 5)),
            # without a plain answer one more is needed
            *(("jerry-xl", "q1", n) for n in (2, 3, 4, 5, 6)),
        ]

    def test_what_failed_is_asked_again_and_the_rest_is_not(self) -> None:
        records = sampled("q0", "a", None, "b")
        left = summary.samples_left([PLAIN, MOA], QUESTIONS[:1], records)
        assert [n for _, _, n in left] == [3, 5]
        again = [*records, record("jerry-xl", "q0", sample=3, final="c")]
        assert [n for _, _, n in summary.samples_left([PLAIN, MOA], QUESTIONS[:1], again)] == [5]

    def test_an_answer_of_an_older_version_cannot_vote(self) -> None:
        records = sampled("q0", "a", "a", "a", "a", first=None)
        left = summary.samples_left([PLAIN, MOA], QUESTIONS[:1], records)
        assert [n for _, _, n in left] == [6]

    @pytest.mark.parametrize(
        ("finals", "is_right"),
        [
            (["no", "yes", "yes"], True),
            (["yes", "no", "no"], False),
            # of several answers with as many votes the first one wins
            (["yes", "no", "other"], True),
            (["no", "yes", "other"], False),
            # an empty answer has no vote
            (["", "", "yes"], True),
            (["", "", ""], False),
        ],
    )
    def test_most_samples_decide(self, finals: list[str], is_right: bool) -> None:
        voted = summary.vote(sampled("q0", *finals[1:], first=finals[0]))
        assert voted.right is is_right

    def test_it_costs_what_all_samples_cost_and_takes_as_long_as_the_slowest(self) -> None:
        voted = summary.vote(sampled("q0", "a", "a"))
        assert (voted.calls, voted.tokens, voted.seconds) == (3, 300, 3.0)

    def rows(self, records: list[Record]) -> list[Row]:
        comparison = Comparison(HEADER, [PLAIN, MOA], QUESTIONS, Path("x"), records, True)
        return comparison.rows(Prices(1, 1))

    def test_it_is_a_row_behind_its_model_and_the_rival_of_the_strategy(self) -> None:
        records = []
        for number in range(12):
            finals = ("yes", "yes", "yes", "yes") if number < 6 else ("no", "no", "no", "no")
            records += sampled(f"q{number}", *finals, first="no")
            records.append(record("moa-jerry-xl", f"q{number}", True, completions=5))
        plain, baseline, moa = self.rows(records)
        assert (plain.right, plain.answered, plain.calls, plain.tokens) == (0, 12, 12, 1200)
        assert (baseline.right, baseline.answered, baseline.calls) == (6, 12, 60)
        assert (baseline.tokens, baseline.cost) == (6000, pytest.approx(0.006))
        assert baseline.beside is not None
        assert (baseline.beside.gained, baseline.beside.verdict) == (6, "better")
        assert moa.beside is not None
        assert moa.beside.gained == 12
        assert moa.beside_samples is not None
        assert (moa.beside_samples.gained, moa.beside_samples.lost) == (6, 0)
        said = summary.sentences(moa)
        assert said[1].startswith(
            "moa against the plain model asked as often: better. Of 12 questions, right on 6 that "
            "its majority had wrong, wrong on 0 "
        )
        assert summary.sentences(baseline) == []
        item = baseline.as_dict()
        assert (item["id"], item["data"]["samples"]) == ("jerry-xl x5", 5)
        assert moa.as_dict()["data"]["beside_samples"]["verdict"] == "better"

    def test_the_verdict_beside_the_plain_model_does_not_depend_on_it(self) -> None:
        records = answered("------------", "++++++------")
        without = summary.rows([PLAIN, MOA], QUESTIONS, records, None)[1]
        assert self.rows(records)[2].beside == without.beside

    def test_a_question_with_too_few_samples_has_no_vote(self) -> None:
        baseline = self.rows(sampled("q0", "a", "a"))[1]
        assert (baseline.answered, baseline.failed, baseline.left_out) == (0, 0, 12)
        baseline = self.rows(sampled("q0", "a", "a", None, "a"))[1]
        assert (baseline.answered, baseline.failed, baseline.error) == (0, 1, "no")

    def test_the_page_has_it(self) -> None:
        records = [*sampled("q0", "yes", "yes", "yes", "yes"), record("moa-jerry-xl", "q0")]
        rows = self.rows(records)
        text = page.render_page(rows, QUESTIONS, records, content=False, priced=True, when="now")
        assert "jerry-xl x5" in text
        assert ">1/1</td>" in text

    @given(st.lists(st.lists(st.sampled_from(["yes", "no", "", None]), max_size=7), max_size=4))
    def test_asking_for_what_is_left_leaves_nothing(self, finals: list[list[str | None]]) -> None:
        records = [r for n, of in enumerate(finals) for r in sampled(f"q{n}", *of)]
        asked = QUESTIONS[:4]
        records += [
            record(s.model, q.id, sample=number, final="yes")
            for s, q, number in summary.samples_left([PLAIN, MOA], asked, records)
        ]
        assert summary.samples_left([PLAIN, MOA], asked, records) == []
        (baseline,) = summary.baselines([PLAIN, MOA], records)
        assert len(summary.answers(baseline, asked, records)) == len(asked)


class TestOutlook:
    """What is to come, before anything is asked."""

    def comparison(self, plain_samples: bool, *records: Record) -> Comparison:
        subjects = [PLAIN, MOA, BON]
        return Comparison(HEADER, subjects, QUESTIONS, Path("x"), list(records), plain_samples)

    def test_requests_and_calls(self) -> None:
        begun = self.comparison(False)
        assert (len(begun.left), begun.expected_calls) == (36, 12 * (1 + 3 + 4))

    def test_the_calls_are_those_of_the_requests_so_far(self) -> None:
        known = [record("moa-jerry-xl", "q0", calls=5), record("moa-jerry-xl", "q1", calls=7)]
        begun = self.comparison(False, *known)
        assert (len(begun.left), begun.expected_calls) == (34, 12 * 1 + 10 * 6 + 12 * 4)

    def test_with_samples_of_the_plain_model(self) -> None:
        begun = self.comparison(True)
        # bon makes six completions; the answer of the plain model, which is to come, is one of six
        assert len(begun.samples_left) == 12 * 5
        assert len(begun.left) == 36 + 12 * 5

    def test_what_is_to_come_are_the_requests_that_are_sent(self) -> None:
        begun = self.comparison(True)
        announced = len(begun.left)
        sent = 0
        for request in run._Course(begun).requests():
            sent += 1
            subject, name = request.subject, request.question.id
            judged: dict[str, Any] = {"final": "yes"}
            if subject.strategy:
                judged = {"completions": summary.times(subject, [])}
            begun.records.append(record(subject.model, name, sample=request.sample, **judged))
        assert sent == announced
        assert begun.left == []

    def test_a_plain_request_that_failed_is_to_come_again(self) -> None:
        begun = self.comparison(True, *(record(PLAIN.model, q.id, error="no") for q in QUESTIONS))
        assert len(begun.left) == 36 + 12 * 5
        # where it is not sent again, another sample takes its place
        assert len(begun.samples()) == 12 * 6

    def test_a_budget_that_does_not_fit_the_first_request_is_refused(self) -> None:
        begun = self.comparison(False)
        with pytest.raises(BudgetTooSmall) as refused:
            begun.refuse_small(100)
        assert "--budget-tokens 100 may be too small" in refused.value.what
        assert refused.value.remedy.startswith(f"use --budget-tokens {begun.enough} ")
        begun.refuse_small(begun.enough)
        begun.refuse_small(None)
        # answers are there: the report says what is left out
        self.comparison(False, record("moa-jerry-xl", "q0")).refuse_small(1)


def answer(text: str = "yes", status: int = 200, **headers: str) -> Response:
    body = {
        "choices": [{"message": {"content": text}}],
        "usage": {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12},
    }
    given = {"x-optillm-strategy": "moa", "x-optillm-upstream-calls": "3"}
    given |= {f"x-optillm-{name}": value for name, value in headers.items()}
    return Response(
        status,
        json.dumps(body if status == 200 else {"error": {"message": "the upstream is out"}}),
        given,
        seconds=1.23456,
    )


class TestRecord:
    def found(self, given: Response, subject: Subject = MOA, keep: bool = False) -> Record:
        return run.record(Request(subject, QUESTIONS[0]), given, keep)

    def test_an_answer(self) -> None:
        assert self.found(answer()) == Record("q0", "moa-jerry-xl", True, "", 1.235, 3, 7, 5)
        judged = self.found(
            answer(
                effect="none",
                degraded="ratings_equal,step_failed",
                **{"upstream-completions": "5"},
            )
        )
        assert (judged.effect, judged.completions) == ("none", 5)
        assert judged.codes == ("ratings_equal", "step_failed")
        assert self.found(answer("no")).right is False
        assert self.found(answer("yes, so"), keep=True).answer == "yes, so"
        assert self.found(answer(), PLAIN).calls == 1
        assert self.found(answer()).final is None

    def test_equal_final_answers_of_the_plain_model_have_equal_digests(self) -> None:
        texts = ("yes", "Yes.", "I think so. Answer: **yes**", "no", "")
        first, *others = (self.found(answer(text), PLAIN).final for text in texts)
        assert first
        assert [final == first for final in others] == [True, True, False, False]
        assert "yes" not in first
        # an empty text has no answer, and a failed request has no text
        assert others[-1] == ""
        assert self.found(answer(status=502), PLAIN).final is None

    def test_a_strategy_that_did_not_run_is_no_answer(self) -> None:
        assert self.found(answer(strategy="none")).error == "none ran"
        assert "without the guard" in self.found(Response(200, answer().text)).error
        assert not self.found(answer(strategy="none")).right

    def test_an_error_is_no_wrong_answer(self) -> None:
        failed = self.found(answer(status=502, tokens="40"))
        assert (failed.error, failed.tokens, failed.right) == (
            "502: the upstream is out",
            40,
            False,
        )
        assert self.found(answer("Error: Could not generate any completions")).error
        assert self.found(Response(0, error="refused"), PLAIN).error == "refused"
        assert self.found(Response(0, error="refused"), PLAIN).calls == 0


class TestSubjects:
    CONFIG = Config(
        base_models=("jerry-xl", "tom"), strategies=("moa", "bon"), publish={"boost": "bon-tom"}
    )

    def names(self, *asked: str) -> list[str]:
        return [s.model for s in run.subjects(self.CONFIG, list(asked))]

    def test_all_of_them(self) -> None:
        assert self.names() == [
            "jerry-xl",
            "moa-jerry-xl",
            "bon-jerry-xl",
            "tom",
            "moa-tom",
            "bon-tom",
        ]

    def test_those_that_were_named_with_their_plain_models(self) -> None:
        assert self.names("boost", "bon-tom", "jerry-xl") == ["tom", "bon-tom", "jerry-xl"]

    @pytest.mark.parametrize(
        ("name", "hint"),
        [("moa-jery-xl", "; did you mean 'moa-jerry-xl'?"), ("gpt", "")],
    )
    def test_an_unknown_one_is_told_with_what_was_meant(self, name: str, hint: str) -> None:
        with pytest.raises(UnknownModel) as unknown:
            self.names(name)
        assert unknown.value.what == f"{name} is not an enabled strategy on a base model{hint}"
        assert unknown.value.remedy.startswith("one of these: moa-jerry-xl, ")
        assert unknown.value.code == "unknown-model"


class Page(HTMLParser):
    """What stands in a page: its tags, what it would load, its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loads: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        self.loads += [
            value
            for name, value in attrs
            if name in ("src", "href", "action", "style") or name.startswith("on")
        ]

    def handle_data(self, data: str) -> None:
        self.text += data


ORIGIN = page.Origin()


class TestPage:
    def text(
        self,
        records: list[Record],
        content: bool = False,
        prices: Prices | None = None,
        origin: page.Origin = ORIGIN,
    ) -> str:
        rows = summary.rows(SUBJECTS, QUESTIONS, records, prices)
        priced = prices is not None
        return page.render_page(
            rows, QUESTIONS, records, content=content, priced=priced, when="today", origin=origin
        )

    def page(
        self, records: list[Record], content: bool = False, prices: Prices | None = None
    ) -> Page:
        return Page(self.text(records, content, prices))

    def test_it_needs_nothing_else(self) -> None:
        found = self.page(answered("+-+", "++-"))
        assert found.loads == []
        assert not {"link", "img", "iframe", "object"} & set(found.tags)
        # the plot, its square for the plain model, and three charts
        assert found.tags.count("svg") == 5
        assert found.tags.count("rect") == 1 + 6
        assert found.tags.count("circle") == 1
        assert "within noise" in found.text

    def test_only_its_own_script_runs(self) -> None:
        text = self.text(answered("+-+", "++-"))
        (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"script-src 'sha256-{digest}'" in text
        assert "default-src 'none'" in text

    def test_it_says_how_to_repeat_it(self) -> None:
        origin = page.Origin("optictl compare --models x", (("models", "tom"),), '{"header": 1}')
        records = [record("jerry-xl", "q0", answer="a secret")]
        text = self.text(records, origin=origin)
        assert "optictl compare --models x" in text
        assert "<dt>models</dt><dd>tom</dd>" in text
        found = Page(text).text
        assert '{"header": 1}' in found
        assert records[0].question in found
        assert "a secret" not in found
        assert "a secret" in Page(self.text(records, origin=origin, content=True)).text

    def test_texts_only_where_they_were_asked_for(self) -> None:
        records = [record("jerry-xl", "q0", answer="<script>alert(1)</script>")]
        assert "alert" not in self.page(records).text
        assert "xxx" not in self.page(records).text
        found = self.page(records, content=True)
        assert "<script>alert(1)</script>" in found.text
        assert found.tags.count("script") == 1
        assert "xxx" in found.text

    def test_nothing_answered_yet(self) -> None:
        assert "0/0" in self.page([], prices=Prices(1, 2)).text

    @given(
        st.lists(
            st.tuples(st.sampled_from("+-!"), st.floats(0, 1e6), st.integers(0, 10**9)), max_size=12
        )
    )
    def test_no_bar_leaves_the_drawing(self, given: list[tuple[str, float, int]]) -> None:
        records = [
            record(
                "jerry-xl",
                f"q{n}",
                sign == "+",
                error="no" if sign == "!" else "",
                seconds=seconds,
                completion_tokens=tokens,
            )
            for n, (sign, seconds, tokens) in enumerate(given)
        ]
        rows = summary.rows(SUBJECTS, QUESTIONS, records, None)
        for chart in page.charts(rows):
            assert len({words for _, words in chart.ticks}) == 5
            for bar in chart.bars:
                assert 0 <= bar.low <= bar.high <= 100
                assert 0 <= bar.end <= 100
                assert bar.y < chart.height
        drawn = page.plot(rows, priced=False)
        assert len({words for _, words in drawn.columns}) == 5
        for point in drawn.points:
            assert 5 < point.x < 95
            assert 0 < point.high <= point.y <= point.low < 300

    def test_the_plot_has_accuracy_against_cost(self) -> None:
        rows = summary.rows(SUBJECTS, QUESTIONS, answered("+-+", "+++"), Prices(1, 2))
        plain, strategy = page.plot(rows, priced=True).points
        assert (plain.kind, strategy.kind) == ("plain", "noise")
        assert strategy.y < plain.y
        assert page.plot(rows, priced=True).baselines == [plain.y]
        assert "2 of 3 right" in plain.words
        assert "a question" in plain.words
        assert page.plot(summary.rows(SUBJECTS, QUESTIONS, [], None), priced=False).points == []


class TestVerdict:
    def of(self, *rows: Row) -> str:
        return summary.verdict(rows)

    def row(self, strategy: str, right: int, verdict: str = "", rival: str = "") -> Row:
        def beside(word: str) -> Beside:
            return Beside(20, 9, 1, 0.01, (0.1, 0.5), word)  # type: ignore[arg-type]

        subject = Subject(f"{strategy}-tom".strip("-"), strategy, "tom")
        tokens = 1000 if strategy else 250
        return Row(
            subject=subject,
            right=right,
            answered=20,
            failed=0,
            error="",
            left_out=0,
            interval=(0, 1),
            calls=20,
            prompt_tokens=tokens,
            completion_tokens=tokens,
            p50=1,
            p95=2,
            cost=None,
            beside=beside(verdict) if verdict else None,
            beside_samples=beside(rival) if rival else None,
        )

    def test_the_best_one_is_named_with_its_cost(self) -> None:
        rows = (self.row("", 8), self.row("moa", 16, "better"), self.row("bon", 14, "better"))
        assert self.of(*rows) == (
            "moa-tom is better than the plain model: 16 of 20 right, not 8 of 20, "
            "for 4.0 times the tokens."
        )

    def test_a_strategy_that_only_asks_more_often(self) -> None:
        said = self.of(self.row("", 8), self.row("moa", 16, "better", "within noise"))
        assert said.endswith("The plain model asked as often is as good, within noise.")

    def test_none_is_better(self) -> None:
        rows = (self.row("", 8), self.row("moa", 9, "within noise"), self.row("bon", 1, "worse"))
        assert self.of(*rows) == (
            "No strategy is better than the plain model beyond noise, on 20 questions. "
            "Worse: bon-tom."
        )

    def test_nothing_to_compare(self) -> None:
        assert self.of(self.row("", 8)).startswith("No question has an answer of a strategy")
