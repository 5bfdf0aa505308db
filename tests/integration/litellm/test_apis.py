"""The entries of render-litellm with LiteLLM's APIs, and what one client can do to the others.

A client of LiteLLM may ask for a strategy model in every API that LiteLLM has. Three of them work,
plain and streaming. The others fail for this client only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from optictl.deployment import paths, render
from optictl.deployment.config import Config
from optictl.deployment.config_sections import Listen, Upstream
from optictl.deployment.render import Price
from optictl.proof.standin import Reply, Seen, StandIn, completion
from testing import litellm_proxy as helpers
from testing.litellm_proxy import MASTER_KEY, Entrance, LiteLLM, Ports
from testing.support import STRATEGIES

pytestmark = pytest.mark.slow

OPTILLMS = ("rendered",)
BASE = "apis-xl"
#: The same strategy model in an entry with openai/, as optictl rendered it once.
OLD = "old-moa"
ANSWER = "The answer is 4."
#: Calls that one request of each strategy causes.
CALLS = {"moa": 3, "bon": 4, "self_consistency": 5, "plansearch": 4}
#: A base model that refuses a question which says so.
LIMITED = "apis-limited-xl"
_REFUSE = "Please refuse with"
#: A question whose answers reach the token limit.
_CUT = "Please be long."
THOUGHT = "2 and 2."
PRICE = Price({"input_cost_per_token": 1e-06, "output_cost_per_token": 3e-06}, "the tests")


def rendered(ports: Ports, litellm_port: int) -> str:
    """What `optictl render litellm` prints for this module's OptiLLM."""
    config = Config(
        listen=Listen(port=ports.optillms["rendered"]),
        upstream=Upstream(base_url=helpers.base_url(litellm_port)),
        model=BASE,
    )
    return render.litellm(config, paths.system(), {BASE: PRICE})


def models(ports: Ports) -> list[dict[str, Any]]:
    """LiteLLM's entries for this module that it does not include (see `conftest`)."""
    old = helpers.strategy_entry(OLD, ports.optillms["rendered"], f"moa-{BASE}")
    old["litellm_params"]["model"] = f"openai/moa-{BASE}"
    # LiteLLM asks the base model itself: only its strategy model is in question
    limited = helpers.model_entry(LIMITED, ports.model_url, cooldown_time=0, num_retries=0)
    strategy = helpers.strategy_entry(f"moa-{LIMITED}", ports.optillms["rendered"])
    base = helpers.model_entry(BASE, ports.model_url, allowed_openai_params=["user"])
    return [base, old, limited, strategy]


def _answer(seen: Seen) -> Reply | None:
    """The real model. It refuses a question that asks for it with the status in the question."""
    if seen.body is None:
        return None
    asked = re.search(rf"{_REFUSE} (\d+)", str(seen.body["messages"]))
    if _CUT in str(seen.body["messages"]):
        return Reply(body=_cut(completion(seen.body, ANSWER)))
    if seen.model == LIMITED and asked:
        said = "invalid_request_error model_not_found litellm.NotFoundError: no such model"
        error = {"message": said, "code": "model_not_found", "type": "invalid_request_error"}
        return Reply(int(asked[1]), {"error": error})
    return Reply(body=completion(seen.body, ANSWER))


def _cut(whole: dict[str, Any]) -> dict[str, Any]:
    """A completion that the token limit ended, of a model that thinks."""
    for choice in whole["choices"]:
        choice["finish_reason"] = "length"
        choice["message"]["reasoning_content"] = THOUGHT
    return whole


@dataclass
class Site:
    """LiteLLM, and a client of it."""

    litellm: LiteLLM
    upstream: StandIn

    def send(
        self, path: str, body: Any = None, method: str = "POST", **options: Any
    ) -> httpx.Response:
        """A request to any path of LiteLLM, with its master key."""
        headers = {"Authorization": f"Bearer {MASTER_KEY}", "x-api-key": MASTER_KEY}
        headers |= options.pop("headers", {})
        url = f"http://127.0.0.1:{self.litellm.port}{path}"
        return httpx.request(method, url, json=body, headers=headers, timeout=60, **options)

    def must_serve(self, model: str) -> None:
        """Another client gets an answer."""
        response = self.litellm.ask(model)
        assert response.status_code == 200, response.text


@pytest.fixture(scope="module")
def site(release: Any, entrance: Entrance) -> Iterator[Site]:
    ports = entrance.ports[__name__]
    with ExitStack() as stack:
        upstream = StandIn((BASE, LIMITED), port=ports.model, respond=_answer)
        stack.enter_context(upstream.running())
        server = stack.enter_context(
            helpers.optillm(
                release,
                entrance.litellm.port,
                port=ports.optillms["rendered"],
                base_models=(BASE, LIMITED),
            )
        )
        helpers.ready(server)
        yield Site(entrance.litellm, upstream)


# the three APIs


def _chat(model: str, **more: Any) -> tuple[str, dict[str, Any]]:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}]
    return "/v1/chat/completions", {"model": model, "messages": messages, **more}


def _responses(model: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """As Codex sends it."""
    part = {"type": "input_text", "text": "2 + 2?"}
    body = {
        "model": model,
        "instructions": "Be brief.",
        "input": [{"type": "message", "role": "user", "content": [part]}],
        "store": False,
        **more,
    }
    return "/v1/responses", body


def _messages(model: str, **more: Any) -> tuple[str, dict[str, Any]]:
    """As Claude Code sends it."""
    body = {
        "model": model,
        "max_tokens": 1024,
        "system": [{"type": "text", "text": "Be brief."}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": "2 + 2?"}]}],
        **more,
    }
    return "/v1/messages", body


APIS = {"chat": _chat, "responses": _responses, "messages": _messages}
Api = Callable[..., tuple[str, dict[str, Any]]]
every_api = pytest.mark.parametrize("api", APIS.values(), ids=APIS)


def text_of(path: str, data: dict[str, Any]) -> str:
    """The text of a whole answer of one of the APIs."""
    if path == "/v1/chat/completions":
        return str(data["choices"][0]["message"]["content"])
    if path == "/v1/messages":
        return "".join(part["text"] for part in data["content"] if part["type"] == "text")
    return "".join(
        part["text"]
        for item in data["output"]
        if item["type"] == "message"
        for part in item["content"]
    )


def streamed_text(path: str, events: list[dict[str, Any]]) -> str:
    """The text of a streamed answer of one of the APIs."""
    if path == "/v1/chat/completions":
        pieces = [choice["delta"].get("content") for e in events for choice in e["choices"]]
    elif path == "/v1/messages":
        deltas = [e["delta"] for e in events if e["type"] == "content_block_delta"]
        pieces = [delta.get("text") for delta in deltas]
    else:
        pieces = [e["delta"] for e in events if e["type"] == "response.output_text.delta"]
    return "".join(piece or "" for piece in pieces)


def _events(response: httpx.Response) -> list[dict[str, Any]]:
    lines = [line for line in response.text.splitlines() if line.startswith("data: ")]
    found = [line.removeprefix("data: ") for line in lines]
    return [json.loads(line) for line in found if line != "[DONE]"]


@every_api
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_api_answers_with_the_text_of_the_strategy(site: Site, api: Api, strategy: str) -> None:
    path, body = api(f"{strategy}-{BASE}")
    before = len(site.upstream.calls())
    response = site.send(path, body)
    assert response.status_code == 200, response.text
    assert text_of(path, response.json()) == ANSWER
    assert len(site.upstream.calls()) - before == CALLS[strategy]
    usage = response.json()["usage"]
    assert usage.get("output_tokens", usage.get("completion_tokens")) > 0


@every_api
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_an_api_streams_the_text_of_the_strategy(site: Site, api: Api, strategy: str) -> None:
    path, body = api(f"{strategy}-{BASE}", stream=True)
    response = site.send(path, body)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].startswith("text/event-stream")
    assert streamed_text(path, _events(response)) == ANSWER


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_litellm_books_the_tokens_of_all_calls_at_the_price_of_the_base_model(
    site: Site, strategy: str
) -> None:
    response = site.send(*_chat(f"{strategy}-{BASE}"))
    assert response.status_code == 200, response.text
    usage = response.json()["usage"]
    cost = 1e-06 * usage["prompt_tokens"] + 3e-06 * usage["completion_tokens"]
    assert float(response.headers["x-litellm-response-cost"]) == pytest.approx(cost)
    said = helpers.facts(response)
    assert usage["total_tokens"] == int(said["tokens"])
    assert "dropped" not in said  # LiteLLM sends no setting of the entry on


# what a client sends arrives, through LiteLLM in front and behind

_PICTURE = "data:image/png;base64,iVBORw0KGgo="
_FUNCTION = {"name": "get_rain", "parameters": {"type": "object", "properties": {}}}


def _calling(seen: Seen) -> Reply | None:
    """A model that calls its tool, if it has one."""
    if seen.body is None:
        return None
    body = completion(seen.body, ANSWER)
    if seen.body.get("tools") and seen.body.get("tool_choice") != "none":
        call = {"name": "get_rain", "arguments": '{"city": "Bern"}'}
        for choice in body["choices"]:
            tool_calls = [{"id": "call_1", "type": "function", "function": call}]
            choice["message"] |= {"content": None, "tool_calls": tool_calls}
            choice["finish_reason"] = "tool_calls"
    return Reply(body=body)


def test_pictures_parameters_and_options_arrive(site: Site) -> None:
    content = [
        {"type": "text", "text": "What is this?"},
        {"type": "image_url", "image_url": {"url": _PICTURE}},
    ]
    sent = {"top_p": 0.5, "seed": 3, "stop": ["END"], "presence_penalty": 0.1}
    body = {
        "model": f"bon-{BASE}",
        "messages": [{"role": "user", "content": content, "name": "ann"}],
        "strategy_options": {"samples": 2},
        **sent,
    }
    site.upstream.seen.clear()
    response = site.send("/v1/chat/completions", body)
    assert response.status_code == 200, response.text
    assert "dropped" not in helpers.facts(response)
    candidates, *ratings = [seen.body or {} for seen in site.upstream.calls()]
    assert (candidates["n"], len(ratings)) == (2, 2)
    assert {name: candidates.get(name) for name in sent} == sent
    for call in (candidates, *ratings):
        assert _PICTURE in str(call["messages"])


@every_api
@pytest.mark.parametrize("stream", [False, True])
def test_a_call_of_a_tool_comes_back_as_such(site: Site, api: Api, stream: bool) -> None:
    tools = {
        "chat": [{"type": "function", "function": _FUNCTION}],
        "responses": [{"type": "function", **_FUNCTION}],
        "messages": [{"name": "get_rain", "input_schema": _FUNCTION["parameters"]}],
    }
    site.upstream.respond = _calling
    try:
        name = next(name for name, one in APIS.items() if one is api)
        path, body = api(f"moa-{BASE}", stream=stream, tools=tools[name])
        response = site.send(path, body)
    finally:
        site.upstream.respond = _answer
    assert response.status_code == 200, response.text
    assert "get_rain" in response.text
    assert "Bern" in response.text
    kind = {"chat": "tool_calls", "responses": "function_call", "messages": "tool_use"}[name]
    assert kind in response.text
    if not stream and name == "chat":
        choice = response.json()["choices"][0]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["tool_calls"][0]["id"] == "call_1"


# what comes back, and what goes along


def test_the_end_of_every_answer_survives(site: Site) -> None:
    response = site.litellm.ask(f"bon-{BASE}", _CUT, n=2)
    assert response.status_code == 200, response.text
    choices = response.json()["choices"]
    assert [one["finish_reason"] for one in choices] == ["length", "length"]
    assert [one["message"]["reasoning_content"] for one in choices] == [THOUGHT, THOUGHT]


def test_a_stream_has_every_text_before_its_end(site: Site) -> None:
    """LiteLLM sends one end only, that of the first answer, as soon as it has one."""
    response = site.litellm.ask(f"bon-{BASE}", _CUT, n=2, stream=True)
    assert response.status_code == 200, response.text
    choices = [choice for event in _events(response) for choice in event["choices"]]
    texts, thoughts = {0: "", 1: ""}, {0: "", 1: ""}
    while not choices[0].get("finish_reason"):
        choice = choices.pop(0)
        texts[choice["index"]] += choice["delta"].get("content") or ""
        thoughts[choice["index"]] += choice["delta"].get("reasoning_content") or ""
    assert texts == {0: ANSWER, 1: ANSWER}
    assert thoughts == {0: THOUGHT, 1: THOUGHT}
    assert [(one["index"], one["finish_reason"]) for one in choices] == [(0, "length")]


def test_a_limit_of_the_service_is_named(site: Site) -> None:
    response = site.litellm.ask(f"bon-{BASE}", _CUT)
    assert helpers.facts(response)["limited-by"] == "effect.answer_tokens"
    assert response.json()["optillm"] == {"limited_by": ["effect.answer_tokens"]}


@pytest.mark.parametrize("stream", [False, True])
def test_the_end_user_reaches_the_base_model(site: Site, stream: bool) -> None:
    """Through LiteLLM, the guard and LiteLLM again, whose entry lets the user pass, too."""
    before = len(site.upstream.calls())
    response = site.litellm.ask(f"moa-{BASE}", user="alice", safety_identifier="a-1", stream=stream)
    assert response.status_code == 200, response.text
    calls = site.upstream.calls()[before:]
    assert len(calls) == CALLS["moa"]
    assert [(seen.body or {}).get("user") for seen in calls] == ["alice"] * len(calls)
    assert {(seen.body or {}).get("safety_identifier") for seen in calls} == {"a-1"}


def test_the_trace_of_a_client_reaches_the_base_model(site: Site) -> None:
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    before = len(site.upstream.calls())
    response = site.litellm.ask(f"moa-{BASE}", extra_headers=trace)
    assert response.status_code == 200, response.text
    calls = site.upstream.calls()[before:]
    assert {seen.headers.get("traceparent") for seen in calls} == {trace["traceparent"]}


# what one client can do to the others

_TEXT = {"input": "hello"}
#: APIs that a strategy model does not have.
OTHERS: dict[str, tuple[str, dict[str, Any]]] = {
    "completions": ("/v1/completions", {"prompt": "2 + 2?"}),
    "embeddings": ("/v1/embeddings", _TEXT),
    "images": ("/v1/images/generations", {"prompt": "a cat"}),
    "moderations": ("/v1/moderations", _TEXT),
    "speech": ("/v1/audio/speech", {**_TEXT, "voice": "alloy"}),
    "rerank": ("/v1/rerank", {"query": "a", "documents": ["b"]}),
    "tokens": ("/v1/messages/count_tokens", {"messages": [{"role": "user", "content": "x"}]}),
}
#: Bodies of chat completions that the guard or the strategy refuses.
BAD: dict[str, dict[str, Any]] = {
    "no messages": {"messages": []},
    "no text": {"messages": [{"role": "user", "content": ""}]},
    "many answers": {"n": 100},
    "too many answers": {"n": 1000},
    "fraction": {"n": 1.5},
    "negative": {"max_tokens": -1},
    "huge": {"messages": [{"role": "user", "content": "x" * 5_000_000}]},
    "field": {"optillm_approach": "z3"},
    "option": {"strategy_options": {"samples": 5}},
    "key": {"api_key": "another key"},
    "address": {"api_base": "http://127.0.0.1:9/v1"},
}
#: Words in which LiteLLM recognizes an error of a provider, whatever its status is.
WORDS = (
    "invalid_request_error model_not_found",
    "Incorrect API key provided",
    "Rate limit reached 429",
    "Request timed out",
    "A timeout occurred",
    "litellm.NotFoundError: NotFoundError",
    "This model's maximum context length is 8 tokens",
)
each_entry = pytest.mark.parametrize("model", [f"moa-{BASE}", OLD], ids=["rendered", "openai"])


@each_entry
@pytest.mark.parametrize("name", OTHERS)
def test_another_api_takes_the_model_from_no_other_client(
    site: Site, model: str, name: str
) -> None:
    path, body = OTHERS[name]
    for _ in range(6):
        response = site.send(path, {"model": model, **body})
        assert response.status_code not in (404, 429), response.text
        site.must_serve(model)


@pytest.mark.parametrize("path", ["/v1/responses", "/v1/messages"])
def test_an_old_entry_fails_for_its_own_client_only(site: Site, path: str) -> None:
    _, body = APIS[path.rpartition("/")[2]](OLD)
    for _ in range(6):
        response = site.send(path, body)
        assert response.status_code == 400, response.text
        assert "custom_openai/NAME" in response.text
        site.must_serve(OLD)


@each_entry
def test_an_upload_takes_the_model_from_no_other_client(site: Site, model: str) -> None:
    for _ in range(6):
        files = {"file": ("a.wav", b"RIFF0000WAVE", "audio/wav")}
        response = site.send(
            "/v1/audio/transcriptions", data={"model": model}, files=files, headers={}
        )
        assert response.status_code not in (404, 429), response.text
        site.must_serve(model)


@each_entry
@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_takes_the_model_from_no_other_client(
    site: Site, model: str, name: str
) -> None:
    for _ in range(3):
        path, body = _chat(model)
        site.send(path, {**body, **BAD[name]})
        site.must_serve(model)


@each_entry
@pytest.mark.parametrize("words", WORDS)
def test_the_words_of_a_client_take_the_model_from_no_other(
    site: Site, model: str, words: str
) -> None:
    fields: list[dict[str, Any]] = [
        {"messages": [{"role": words, "content": "x"}]},
        {
            "messages": [
                {"role": "user", "content": f"<optillm_approach>{words}</optillm_approach>"}
            ]
        },
        {"n": words},
        {words: words},
        {"optillm_approach": words},
        {"messages": [{"role": "user", "content": [{"type": words}]}]},
    ]
    for field in fields:
        path, body = _chat(model)
        site.send(path, {**body, **field})
        site.must_serve(model)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 408, 413, 422, 429, 500, 503])
def test_a_refusal_of_the_base_model_takes_the_strategy_from_no_other_client(
    site: Site, status: int
) -> None:
    for _ in range(6):
        response = site.litellm.ask(f"moa-{LIMITED}", f"{_REFUSE} {status}")
        assert response.status_code not in (200, 401, 404), response.text
        site.must_serve(f"moa-{LIMITED}")
