"""Records, what is left of a run, what the next request may cost, and what each model was worth."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.deployment.config import Config
from optictl.host.network import Response
from optictl.requests.compare import page, questions, run, summary
from optictl.requests.compare.summary import Header, Prices, Record, RecordsError, Row, Subject

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
        assert summary.sentence(worth("------------", "++++++------")) == (
            "moa: better. Of 12 questions, right on 6 that the plain model had wrong, "
            "wrong on 0 that it had right: "
            "p = 0.031, +15 to +75 percentage points at 95 %, 100 tokens per question"
        )
        # the interval alone would exclude that there is none: no sentence says both
        assert "within noise" in (text := summary.sentence(worth("------------", "+++++-------")))
        assert "p = 0.062, 0 to +68 percentage points" in text
        assert summary.sentence(worth(" ", "+")) == "moa: no question has an answer of both models"

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
        return run.record(subject, QUESTIONS[0], given, keep)

    def test_an_answer(self) -> None:
        assert self.found(answer()) == Record("q0", "moa-jerry-xl", True, "", 1.235, 3, 7, 5)
        assert self.found(answer("no")).right is False
        assert self.found(answer("yes, so"), keep=True).answer == "yes, so"
        assert self.found(answer(), PLAIN).calls == 1

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
        [("moa-jery-xl", "did you mean 'moa-jerry-xl'?"), ("gpt", "known names: moa-jerry-xl")],
    )
    def test_an_unknown_one_is_told_with_what_was_meant(self, name: str, hint: str) -> None:
        with pytest.raises(run.UnknownModel, match=re.escape(hint)):
            self.names(name)


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


class TestPage:
    def page(
        self, records: list[Record], content: bool = False, prices: Prices | None = None
    ) -> Page:
        rows = summary.rows(SUBJECTS, QUESTIONS, records, prices)
        priced = prices is not None
        return Page(
            page.render_page(rows, QUESTIONS, records, content=content, priced=priced, when="today")
        )

    def test_it_needs_nothing_else(self) -> None:
        found = self.page(answered("+-+", "++-"))
        assert found.loads == []
        assert not {"script", "link", "img", "iframe", "object"} & set(found.tags)
        assert found.tags.count("svg") == 3
        assert found.tags.count("rect") == 6
        assert "within noise" in found.text

    def test_texts_only_where_they_were_asked_for(self) -> None:
        records = [record("jerry-xl", "q0", answer="<script>alert(1)</script>")]
        assert "alert" not in self.page(records).text
        assert "xxx" not in self.page(records).text
        found = self.page(records, content=True)
        assert "<script>alert(1)</script>" in found.text
        assert "script" not in found.tags
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
        for chart in page.charts(summary.rows(SUBJECTS, QUESTIONS, records, None)):
            assert len({words for _, words in chart.ticks}) == 5
            for bar in chart.bars:
                assert 0 < bar.low <= bar.high < page.WIDTH
                assert 0 < bar.end < page.WIDTH
                assert bar.y < chart.height
