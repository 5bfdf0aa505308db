"""benchmarks/effect.py: its verdicts and tables, on answers that are given here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import effect, effect_tables
from benchmarks.effect_tables import OFF, OFTEN, ON, PLAIN, STRATEGIES, Record, Results, name
from optictl.host.network import Response
from optictl.requests.compare import questions as asking
from scripts import performance_page

(QUESTION,) = asking.parse(
    '{"id": "q", "prompt": "What is 6 times 7?", "expected": {"number": 42}}'
)


def answer(text: str = "42", status: int = 200, **headers: str) -> Response:
    body = {"choices": [{"message": {"content": text}}], "usage": {"total_tokens": 12}}
    sent = {f"x-optillm-{header.replace('_', '-')}": value for header, value in headers.items()}
    return Response(status, json.dumps(body), sent)


class TestRecords:
    def test_an_answer(self) -> None:
        given = answer(
            effect="weak", degraded="critique_cut", fixed="ratings,votes", upstream_calls="3"
        )
        assert effect.strategy_record(QUESTION, "moa, fixes on", given, 77) == Record(
            "q", "moa, fixes on", True, "weak", ("critique_cut",), ("ratings", "votes"), 3, 0, 77
        )

    def test_a_request_without_an_answer_has_no_effect_and_is_wrong(self) -> None:
        given = answer(status=400, effect="weak", degraded="final_cut")
        record = effect.strategy_record(QUESTION, "moa, fixes on", given, 0)
        assert (record.right, record.effect) == (False, "none")
        assert record.codes == ("final_cut", "status 400")

    @pytest.mark.parametrize(
        ("texts", "right"),
        [
            (["so 41", "it is 42", "I think 42"], True),
            (["so 41", "41", "I think 42"], False),
            (["so 41", "it is 42"], False),
            (["only 42"], True),
            (["", "", "42"], True),
            (["", ""], False),
        ],
    )
    def test_the_plain_model_as_often(self, texts: list[str], right: bool) -> None:
        record = effect.often(QUESTION, "s", [(text, 5) for text in texts])
        assert (record.right, record.calls, record.tokens) == (right, len(texts), 5 * len(texts))

    def test_a_run_resumes_from_its_records(self, tmp_path: Path) -> None:
        record = Record("q", "moa, fixes on", True, "weak", ("a",), ("b", "c"), 3, 5, 77)
        path = tmp_path / "records"
        assert effect.read(path) == effect.read(None) == []
        path.write_text(json.dumps(asdict(record)) + "\n")
        assert effect.read(path) == [record]


def records() -> Iterator[Record]:
    """Two questions: the plain model has one right, moa with fixes on both."""
    for question, right in (("a", True), ("b", False)):
        yield Record(question, PLAIN, right, tokens=100)
        for strategy in STRATEGIES:
            codes = ("no_agreement",)
            yield Record(question, name(strategy, OFF), False, "none", codes, (), 4, 5, 900)
            yield Record(question, name(strategy, ON), True, "full", (), ("votes",), 4, 5, 1200)
            yield Record(question, name(strategy, OFTEN), right, "", (), (), 5, 5, 500)


RESULTS = Results(list(records()), dict.fromkeys(STRATEGIES, 0.05))


def line(table: str, begin: str) -> list[str]:
    (found,) = [row for row in table.splitlines() if row.startswith(f"| {begin} |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


def test_the_share_with_effect_and_its_goal() -> None:
    table = effect_tables.effects(RESULTS)
    assert line(table, "moa | off")[2:] == [
        "0 % (0 of 2; 0 to 66)",
        "0",
        "0",
        "2",
        "no_agreement 2",
        "-",
        "",
    ]
    assert line(table, "moa | on")[2:] == [
        "100 % (2 of 2; 34 to 100)",
        "2",
        "0",
        "0",
        "-",
        "votes 2",
        "at least 95%: met",
    ]
    worse = Results([*RESULTS.records, Record("c", name("moa", ON), False, "none")])
    assert line(effect_tables.effects(worse), "moa | on")[-1] == "at least 95%: **not met**"
    assert line(table, "self_consistency | on")[-1] == ""


def test_right_answers_beside_the_plain_model() -> None:
    table = effect_tables.accuracy(RESULTS)
    assert line(table, "plain")[1:] == ["50 % (1 of 2; 9 to 91)", "1", "100", "", "", ""]
    assert line(table, "moa, fixes off")[4:] == ["0", "1", "1"]
    assert line(table, "moa, fixes on")[2:] == ["4", "1,200", "1", "0", "1"]


def test_a_slow_judgement_is_marked() -> None:
    slow = Results([], {"moa": 0.3, "bon": 0.199})
    table = effect_tables.costs(slow)
    assert line(table, "moa")[1:] == ["0.300", "below 0.2: **not met**"]
    assert line(table, "bon")[1:] == ["0.199", "below 0.2: met"]


def test_the_page_shows_what_the_benchmark_wrote() -> None:
    text = effect_tables.report(RESULTS, 400, 1.0)
    shown = performance_page.effect(text)
    assert line(shown, "plain model")[3:] == ["50 % (1 of 2; 9 to 91)", "", "100"]
    assert line(shown, "`moa`")[1:] == [
        "0 % (0 of 2; 0 to 66)",
        "100 % (2 of 2; 34 to 100)",
        "100 % (2 of 2; 34 to 100)",
        "50 % (1 of 2; 9 to 91)",
        "1,200",
    ]
    with pytest.raises(ValueError, match="no row of the plain model"):
        performance_page.effect("")
