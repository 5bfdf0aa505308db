"""The course of `optictl smoke`: what it asks for, and how it finds the cause of a lost effect."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from optictl.deployment import paths
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.host import network
from optictl.host.network import Response
from optictl.requests import smoke
from optictl.requests.smoke import Asking, Keys, Smoked
from optictl.results import Result

CONFIG = Config(strategies=("bon",))
HEADERS = {
    "x-optillm-strategy": "bon",
    "x-optillm-upstream-completions": "6",
    "x-optillm-upstream-models": "jerry-xl",
    "x-optillm-trace": "feed",
}
DIRECT = Asking()
LOST = {"x-optillm-effect": "none", "x-optillm-degraded": "ratings_unreadable"}
PARAGRAPH = "It is a good answer because it explains every step and ends with the right number."


def trace(answers: list[str] | None) -> dict[str, Any]:
    call = {"purpose": "rating", "model": "jerry-xl", "start": 0.0, "seconds": 1.0, "status": 200}
    call |= {"error": "", "completions": 1, "prompt_tokens": 5, "completion_tokens": 19}
    call |= {"codes": ["ratings_unreadable"]}
    whole = {"trace": "feed", "strategy": "bon", "base_model": "jerry-xl", "seconds": 1.0}
    whole |= {"status": 200, "code": "", "prompt_tokens": 5, "completion_tokens": 19}
    return {**whole, "calls": [{**call, **({} if answers is None else {"answers": answers})}]}


class Service:
    """A scripted proxy, in place of the network: answers with these headers, and has a trace."""

    def __init__(self, headers: Mapping[str, str], recorded: Response) -> None:
        self.headers, self.recorded = {**HEADERS, **headers}, recorded
        self.asked: list[tuple[str, str]] = []
        self.sent: list[Mapping[str, str]] = []

    def __call__(
        self,
        method: str,
        url: str,
        *,
        key: str | None = None,
        headers: Mapping[str, str] = {},
        **more: Any,
    ) -> Response:
        self.asked.append((url.removeprefix(CONFIG.url.removesuffix("/v1")), str(key)))
        if method == "GET":
            return self.recorded
        self.sent.append(headers)
        text = json.dumps({"choices": [{"message": {"content": "Answer: 0.05"}}]})
        return Response(200, text, self.headers, seconds=1)


@pytest.fixture
def places(tmp_path: Path) -> Paths:
    made = paths.system(tmp_path)
    made.etc.mkdir(parents=True)
    made.proxy_key.write_text("own-key\n")
    return made


def smoked(
    monkeypatch: pytest.MonkeyPatch, places: Paths, service: Service, asking: Asking = DIRECT
) -> Result:
    monkeypatch.setattr(network, "request", service)
    keys = Keys("own-key", "")
    (one,) = smoke.run(CONFIG, places, keys, ["bon-jerry-xl"], lambda text: None, asking)
    return one.result


def test_a_lost_effect_quotes_the_call_that_lost_it(
    monkeypatch: pytest.MonkeyPatch, places: Paths
) -> None:
    service = Service(LOST, Response(200, json.dumps(trace([PARAGRAPH]))))
    result = smoked(monkeypatch, places, service)
    assert (result.status, result.found) == (
        "fail",
        "ratings held no number that can be read, so they counted as 0 (ratings_unreadable)",
    )
    assert result.cause == (
        "the rating model answered with a paragraph: "
        '"It is a good answer because it explains every step and en..."'
    )
    assert service.sent == [{"x-optillm-trace-content": "1"}]
    assert service.asked[-1] == ("/guard/traces/feed", "own-key")


@pytest.mark.parametrize(
    "recorded",
    [
        Response(0, error="Connection refused"),
        Response(404, "{}"),
        Response(200, "no JSON"),
        Response(200, json.dumps({"calls": 5})),
        Response(200, json.dumps({**trace([]), "calls": []})),
    ],
)
def test_a_trace_that_cannot_be_read_changes_nothing(
    recorded: Response, monkeypatch: pytest.MonkeyPatch, places: Paths
) -> None:
    result = smoked(monkeypatch, places, Service(LOST, recorded))
    assert (result.status, result.cause) == ("fail", "")
    assert "(ratings_unreadable)" in result.found


def test_a_service_whose_key_is_unknown_changes_nothing(
    monkeypatch: pytest.MonkeyPatch, places: Paths
) -> None:
    places.proxy_key.unlink()
    service = Service(LOST, Response(200, json.dumps(trace([PARAGRAPH]))))
    assert smoked(monkeypatch, places, service).cause == ""


def test_a_full_effect_needs_no_trace(monkeypatch: pytest.MonkeyPatch, places: Paths) -> None:
    service = Service({"x-optillm-effect": "full"}, Response(500))
    result = smoked(monkeypatch, places, service)
    assert (result.status, result.cause) == ("pass", "")
    assert [path for path, _ in service.asked] == ["/v1/chat/completions"]


def test_through_litellm_nothing_is_kept_and_the_tokens_are_the_cause(
    monkeypatch: pytest.MonkeyPatch, places: Paths
) -> None:
    service = Service(LOST, Response(200, json.dumps(trace(None))))
    asking = Asking(url="http://127.0.0.1:4000/v1")
    result = smoked(monkeypatch, places, service, asking)
    assert service.sent == [{}]
    assert result.cause == "the rating model answered with 19 tokens"


def test_each_result_is_reported_when_it_is_known(
    monkeypatch: pytest.MonkeyPatch, places: Paths
) -> None:
    service = Service({"x-optillm-effect": "full"}, Response(500))
    monkeypatch.setattr(network, "request", service)
    ended: list[tuple[str, int]] = []

    def note(one: Smoked) -> None:
        ended.append((one.result.id, len(service.sent)))

    names = ["bon-jerry-xl", "bon-jerry-xl"]
    smoke.run(CONFIG, places, Keys("own-key", ""), names, lambda text: None, ended=note)
    assert ended == [("bon-jerry-xl", 1), ("bon-jerry-xl", 2)]


def test_traces_hold_contents_only_for_who_asked_for_them(
    monkeypatch: pytest.MonkeyPatch, places: Paths
) -> None:
    service = Service(LOST, Response(200, json.dumps(trace([PARAGRAPH]))))
    monkeypatch.setattr(network, "request", service)
    run = smoke.run(CONFIG, places, Keys("own-key", ""), ["bon-jerry-xl"], lambda text: None)
    for content in (False, True):
        (one,), problems = smoke.traced(CONFIG, places, run, content)
        assert problems == []
        assert one.trace is not None
        assert one.result.data is not None
        assert (PARAGRAPH in str(one.trace)) is content
        assert (PARAGRAPH in str(one.result.data["trace"])) is content
