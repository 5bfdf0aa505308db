"""A request's trace: read, measured, drawn as bars and as a page."""

from __future__ import annotations

import html.parser
from typing import Any

import pytest

from optictl.deployment import paths
from optictl.deployment.config import Config
from optictl.errors import OptictlError
from optictl.host import network
from optictl.host.network import Response
from optictl.requests import tracing
from optictl.requests.tracing import Trace


def _call(start: float, seconds: float | None, **more: Any) -> dict[str, Any]:
    return {
        "purpose": "candidate",
        "model": "jerry-xl",
        "thread": 0,
        "start": start,
        "seconds": seconds,
        "status": 200,
        "error": "",
        "completions": 1,
        "prompt_tokens": 10,
        "completion_tokens": 5,
        **more,
    }


def _trace(*calls: dict[str, Any], **more: Any) -> Trace:
    data = {
        "schema": 1,
        "trace": "feed",
        "strategy": "moa",
        "base_model": "jerry-xl",
        "began": 1.0,
        "seconds": 4.0,
        "status": 200,
        "code": "",
        "prompt_tokens": 20,
        "completion_tokens": 10,
        "calls": list(calls),
        "of a later guard": True,
        **more,
    }
    return tracing.parse(data)


@pytest.mark.parametrize(
    ("calls", "at_once"),
    [
        ([], 0),
        ([(0, 1)], 1),
        ([(0, 1), (1, 1)], 1),
        ([(0, 2), (1, 2), (1.5, 0.2)], 3),
        ([(0, None), (3, 0.5)], 2),
    ],
)
def test_how_many_calls_were_open_at_once(
    calls: list[tuple[float, float | None]], at_once: int
) -> None:
    assert _trace(*(_call(*one) for one in calls)).at_once == at_once


def test_a_call_that_outlasts_its_request_is_drawn_to_its_end() -> None:
    assert _trace(_call(3, 7)).span == 10
    assert _trace(_call(3, None)).span == 4
    assert _trace().span == 4


@pytest.mark.parametrize(
    ("start", "seconds", "bar"),
    [
        (0, 10, (0, 20)),
        (0, 0, (0, 1)),
        (5, 5, (10, 10)),
        (10, 0, (19, 1)),
        (9.99, 0.01, (19, 1)),
        (2.5, 0.1, (5, 1)),
    ],
)
def test_a_bar_has_at_least_one_sign_and_stays_within(
    start: float, seconds: float, bar: tuple[int, int]
) -> None:
    assert tracing.bar(start, seconds, 10, 20) == bar


def test_a_request_that_took_no_time_can_be_drawn() -> None:
    assert tracing.bar(0, 0, 0, 20) == (0, 1)
    assert "moa-jerry-xl" in tracing.page(
        [("moa-jerry-xl", _trace(_call(0, 0), seconds=0))], "today"
    )


def test_what_stands_in_it_without_contents() -> None:
    data = _trace(_call(0, 1)).as_dict()
    assert "messages" not in data
    assert "answers" not in data["calls"][0]
    assert _trace(_call(0, None)).as_dict()["calls"][0]["seconds"] is None


def test_contents_can_be_left_out() -> None:
    full = _trace(_call(0, 1, messages=[], answers=["secret"]), messages=[], answers=["secret"])
    assert "secret" in str(full.as_dict())
    assert "secret" not in str(full.without_content().as_dict())
    assert full.without_content() == _trace(_call(0, 1))


def test_what_was_lost_and_where() -> None:
    lost = {"effect": "none", "degraded": ["critique_empty"], "fixed": ["samples"]}
    trace = _trace(_call(0, 1), _call(1, 1, codes=["critique_empty"]), **lost)
    assert [call.codes for call in trace.calls] == [(), ("critique_empty",)]
    data = trace.as_dict()
    assert (data["effect"], data["degraded"], data["fixed"]) == (
        "none",
        ["critique_empty"],
        ["samples"],
    )
    text = tracing.page([("moa-jerry-xl", trace)], "today")
    assert "<dt>effect</dt><dd>none; fixed: samples</dd>" in text
    assert "<li>critique_empty: The critique was empty" in text
    assert text.count('class="bar lost"') == 1
    assert '<td class="words">critique_empty</td>' in text
    assert ">candidate (lost: critique_empty)</text>" in text


def test_a_trace_of_an_older_guard_says_nothing_of_the_effect() -> None:
    trace = _trace(_call(0, 1))
    assert (trace.effect, trace.degraded, trace.fixed) == ("", (), ())
    assert "<dt>effect</dt>" not in tracing.page([("moa-jerry-xl", trace)], "today")


@pytest.mark.parametrize("wrong", [None, [], {}, {"calls": None}, {"calls": [{}]}, "text"])
def test_what_is_no_trace_is_not_taken_for_one(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"^\w[\w.]*: |^the whole: "):
        tracing.parse(wrong)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"seconds": "long"}, r"calls\.0\.seconds"),
        ({"messages": ["hello"]}, r"calls\.0\.messages\.0"),
        ({"purpose": None}, r"calls\.0\.purpose"),
    ],
)
def test_a_field_of_another_type_is_named(changes: dict[str, Any], field: str) -> None:
    with pytest.raises(ValueError, match=rf"^{field}: "):
        _trace({**_call(0, 1), **changes})


def test_a_trace_that_cannot_be_read_is_an_error_with_a_fix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = Response(200, "{}", {"x-optillm-trace": "feed"})
    monkeypatch.setattr(network, "request", lambda *_, **__: Response(200, '{"calls": []}'))
    with pytest.raises(OptictlError, match="the trace cannot be read: trace: ") as caught:
        tracing.read(Config(), paths.system(), "key", answer)
    assert caught.value.remedy == "optictl check"


class _Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))


def test_the_page_needs_nothing_else_and_escapes_what_it_shows() -> None:
    evil = "<script src=http://127.0.0.1/x.js>&</script>"
    calls = [
        _call(0, 1, messages=[{"role": "user", "content": evil}], answers=[evil]),
        _call(1, 2, status=500, error="5xx", purpose="critique", messages=[], answers=[]),
    ]
    text = tracing.page([("moa-jerry-xl", _trace(*calls, messages=[], answers=[]))], "today")
    tags = _Tags()
    tags.feed(text)
    assert "script" not in {tag for tag, _ in tags.seen}
    assert not [a for _, attributes in tags.seen for a in attributes if a in ("src", "href")]
    bars = [(a["class"], a["x"], a["width"]) for tag, a in tags.seen if tag == "rect"]
    assert bars == [("bar", "0.0%", "25.0%"), ("bar failed", "25.0%", "50.0%")]
    assert evil not in text
    assert text.count("&lt;script") == 2


def test_it_shows_the_prompt_the_answer_and_the_versions() -> None:
    call = _call(0, 1, messages=[], answers=[])
    asked = [{"role": "user", "content": "Why is the sky blue?"}]
    trace = _trace(call, messages=asked, answers=["Rayleigh & co"])
    text = tracing.page([("moa-jerry-xl", trace)], "today", [("OptiLLM", "0.3.12")])
    assert "<pre>user: Why is the sky blue?</pre>" in text
    assert "<pre>Rayleigh &amp; co</pre>" in text
    assert "today, OptiLLM 0.3.12</p>" in text
    assert "Prompt" not in tracing.page([("moa-jerry-xl", _trace(_call(0, 1)))], "today")


def test_parallel_and_serial_time_are_apart() -> None:
    trace = _trace(_call(0.5, 2), _call(0.5, 1), _call(3, 1), seconds=4.5)
    times = trace.time
    assert (times.parallel, times.serial, times.none) == (1, 2, 1.5)
    assert times.calls == 4
    assert "1.00 s with several calls side by side, 2.00 s with one call" in tracing.page(
        [("moa-jerry-xl", trace)], "today"
    )


@pytest.mark.parametrize(
    ("span", "labels"),
    [
        (0, ["0 s"]),
        (0.0021, ["0 s", "0.5 ms", "1 ms", "1.5 ms", "2 ms"]),
        (0.4, ["0 s", "100 ms", "200 ms", "300 ms", "400 ms"]),
        (9.4, ["0 s", "2 s", "4 s", "6 s", "8 s"]),
        (300, ["0 s", "100 s", "200 s", "300 s"]),
    ],
)
def test_the_axis_has_round_numbers(span: float, labels: list[str]) -> None:
    ticks = tracing.ticks(span)
    assert [label for _, label in ticks] == labels
    assert all(0 <= place <= 100 for place, _ in ticks)
