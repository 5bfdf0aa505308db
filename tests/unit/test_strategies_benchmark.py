"""benchmarks/strategies.py: what the slow upstream answers, how streams are read, the tables."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from benchmarks import slow_clients, slow_upstream, strategies_tables
from benchmarks.slow_upstream import Model
from benchmarks.strategies_tables import Crowd, Real, Results, Row
from optictl.guard import ratings, votes
from scripts import performance_page

RATE = {"role": "user", "content": "Rate the above response:"}
FINAL = "Please provide a final, optimized response to the original query:\n    "


def body(content: str = "What is 40 plus 2?", **fields: Any) -> dict[str, Any]:
    return {"model": "jerry-xl", "messages": [{"role": "user", "content": content}], **fields}


class TestUpstream:
    def test_no_two_texts_are_the_same_and_each_takes_a_second(self) -> None:
        model = Model()
        texts = [*model.texts(body(n=3)), *model.texts(body())]
        assert len({"".join(text) for text in texts}) == len(texts) == 4
        assert {len(text) for text in texts} == {slow_upstream.RATE}
        assert slow_upstream.seconds(texts) == 1.0

    def test_samples_agree_and_ratings_are_numbers(self) -> None:
        model = Model()
        answers = ["".join(text) for text in (model.texts(body())[0], model.texts(body())[0])]
        assert {votes.final_answer(text) for text in answers} == {votes.final_answer(answers[0])}
        rating = {"messages": [{"role": "assistant", "content": "x"}, RATE]}
        (text,) = model.texts(rating)
        assert ratings.read("".join(text)) is not None
        assert slow_upstream.seconds([text]) == 1.0

    @pytest.mark.parametrize(
        ("mode", "refused", "choices"),
        [("honour", False, 3), ("ignore", False, 1), ("refuse", True, 1)],
    )
    def test_what_happens_to_n(self, mode: str, refused: bool, choices: int) -> None:
        model = Model(mode)
        assert model.refuses(body(n=3)) is refused
        assert not model.refuses(body(n=1))
        assert not model.refuses(body())
        assert len(model.texts(body(n=3))) == choices

    def test_a_longer_final_text_takes_longer(self) -> None:
        (text,) = Model(final_chunks=40).texts(body(FINAL))
        assert (len(text), slow_upstream.seconds([text])) == (40, 2.0)

    @pytest.mark.parametrize("count", [1, 3])
    def test_a_stream_has_the_text_of_a_whole_answer(self, count: int) -> None:
        asked = body(n=count, stream_options={"include_usage": True})
        texts = Model().texts(asked)
        whole = slow_upstream.completion(asked, texts)
        found = [""] * count
        *parts, end, usage = slow_upstream.chunks(asked, texts)
        assert len(parts) == slow_upstream.RATE
        for part in parts:
            for choice in part["choices"]:
                found[choice["index"]] += choice["delta"]["content"]
        contents = [choice["message"]["content"] for choice in whole["choices"]]
        assert [text.strip() for text in found] == contents
        assert {choice["finish_reason"] for choice in end["choices"]} == {"stop"}
        assert usage["usage"] == whole["usage"]
        assert not list(slow_upstream.chunks(body(), texts))[-1].get("usage")


class Stream:
    """A response that comes in these parts."""

    def __init__(self, *parts: str) -> None:
        self.parts = [part.encode() for part in parts]

    def read1(self, _: int) -> bytes:
        return self.parts.pop(0) if self.parts else b""


def event(**delta: str) -> str:
    return f"data: {json.dumps({'choices': [{'delta': delta}]})}\n\n"


def streamed(*parts: str) -> str:
    answer = slow_clients._streamed(Stream(*parts), 0.0)  # type: ignore[arg-type]
    assert 0 < answer.first <= answer.seconds
    return answer.text


class TestStream:
    def test_comments_and_progress_are_no_tokens(self) -> None:
        first, second = event(content="4"), event(content="2")
        parts = [": wait\n\n", event(reasoning_content="candidate 1"), event(role="assistant")]
        assert streamed(*parts, first[:9], first[9:] + second, "data: [DONE]\n\n") == "42"

    @pytest.mark.parametrize(
        ("end", "said"),
        [
            ("", "without"),
            ('event: error\ndata: {"error": {"message": "no"}}\n\n', "has an error"),
        ],
    )
    def test_a_stream_without_its_end_is_no_answer(self, end: str, said: str) -> None:
        with pytest.raises(RuntimeError, match=said):
            streamed(event(content="4"), end)


ROW = Row("`bon`", "s", (2.0, 2.1, 2.2), (4.0, 4.1, 4.2), 2.3, calls=("4", "4"))


class TestTables:
    @pytest.mark.parametrize(
        ("row", "goal", "met"),
        [
            (ROW, "at most 2.3", "yes"),
            (replace(ROW, goal=2.05), "at most 2.05", "**no**"),
            (replace(ROW, goal=2.05, above=True), "at least 2.05", "yes"),
            (replace(ROW, goal=2.15, above=True), "at least 2.15", "**no**"),
            (replace(ROW, guarded=(0, 0, 1), goal=0), "0", "yes"),
            (replace(ROW, guarded=(0, 1, 1), goal=0), "0", "**no**"),
            (replace(ROW, guarded=()), "at most 2.3", "**no**"),
            (replace(ROW, goal=None), "", ""),
        ],
    )
    def test_a_goal_and_whether_it_is_met(self, row: Row, goal: str, met: str) -> None:
        assert row.cells()[3:5] == (goal, met)

    def test_the_page(self) -> None:
        gone = replace(ROW, what="gone", bare=(), calls=("", ""))
        crowd = Crowd("moa", "bare", 63, 3.14, 120.4, 180.6, None, 70, 64)
        real = Real("`moa`, stream", "guarded", 10.0, 420, first=2.5)
        text = strategies_tables.report(Results([ROW, gone], [crowd], [real]), 0.1, 3, 64)
        assert cells(text, "`bon`, s")[1:3] == ["2.10 (2 to 2.20)", "4.10 (4 to 4.20)"]
        assert cells(text, "`bon`, s")[-2:] == ["4", "4"]
        assert cells(text, "gone, s")[2] == "never"
        assert cells(text, "moa") == ["moa", "bare", "63", "3.1", "120", "181", "", "70", "64"]
        assert cells(text, "`moa`, stream")[2:] == ["10.0", "420", "42.0", "2.5", ""]

    def test_the_page_of_performance_shows_it(self) -> None:
        late = replace(ROW, what="late", unit="", guarded=(1,), bare=(), goal=0)
        crowd = [
            Crowd("moa", "guarded", 64, 3.0, 115, 121, 94, 67, 64),
            Crowd("bon", "guarded", 64, 3.0, 115, 119, 94, 259, 64),
            Crowd("moa", "bare", 64, 3.0, 140, 1197, 94, 66, 64),
        ]
        text = strategies_tables.report(Results([ROW, late], crowd), 0.1, 3, 64)
        shown = performance_page.strategies(text)
        assert cells(shown, "`bon`") == ["`bon`", "2.10 s", "4.10 s", "at most 2.3"]
        assert cells(shown, "late") == ["late", "1", "never", "0, not met"]
        assert shown.endswith(
            "the service takes at most 121 MiB and 259 threads;\n"
            "OptiLLM alone takes 1,197 MiB and 66 threads."
        )
        with pytest.raises(ValueError, match="no figures"):
            performance_page.strategies("")

    def test_without_the_real_model_nothing_is_said_of_it(self) -> None:
        assert "real model" not in strategies_tables.report(Results([ROW]), 0.1, 3, 64)


def cells(text: str, begin: str) -> Sequence[str]:
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {begin} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]
