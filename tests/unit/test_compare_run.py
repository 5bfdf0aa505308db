"""What a comparison spends: its price, which model is asked first, and when it stops."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optictl.deployment import paths
from optictl.deployment.config import Config
from optictl.errors import RequestsFailed
from optictl.host import network
from optictl.host.network import Response
from optictl.requests import smoke, tracing
from optictl.requests.compare import prices, questions, run, summary
from optictl.requests.compare.run import Comparison, Terms
from optictl.requests.compare.session import Options, Session
from optictl.requests.compare.summary import Header, Prices, Record, Subject

STRATEGIES = ("moa", "bon")
SUBJECTS = [
    Subject("tom", "", "tom"),
    *(Subject(f"{name}-tom", name, "tom") for name in STRATEGIES),
]
QUESTIONS = questions.parse(
    "\n".join(f'{{"id": "q{n}", "prompt": "{n}?", "expected": "yes"}}' for n in range(5))
)
CONFIG = Config()


def good(model: str) -> Response:
    strategy, _, _ = model.rpartition("-")
    body = (
        '{"choices": [{"message": {"content": "yes"}}],'
        ' "usage": {"prompt_tokens": 30, "completion_tokens": 10, "total_tokens": 40}}'
    )
    headers = {"x-optillm-strategy": strategy, "x-optillm-upstream-calls": "3"} if strategy else {}
    return Response(200, body, headers)


BAD = Response(500, '{"error": {"message": "out of order"}}')
GONE = Response(0, error="connection refused")


class Network:
    """Servers that answer as `respond` says of a model's n-th request."""

    def __init__(self, respond: Callable[[str, int], Response], models: Response = BAD) -> None:
        self.respond, self.models = respond, models
        self.asked: list[str] = []

    def request(self, method: str, url: str, *, body: Any = None, **_: Any) -> Response:
        if method == "GET":
            return self.models
        model = body["model"]
        self.asked.append(model)
        return self.respond(model, self.asked.count(model))


@pytest.fixture
def compare(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[Comparison, list[str]]]:
    def run_it(servers: Network, *records: Record) -> tuple[Comparison, list[str]]:
        monkeypatch.setattr(network, "request", servers.request)
        header = Header("abc", None, tuple(s.model for s in SUBJECTS))
        comparison = Comparison(
            header, SUBJECTS, QUESTIONS, tmp_path / "answers.jsonl", list(records)
        )
        said: list[str] = []
        keys = smoke.Keys("proxy", "upstream")
        run.ask(comparison, CONFIG, keys, Terms(1, None, False, "go on"), said.append)
        return comparison, said

    return run_it


Compare = Callable[..., tuple[Comparison, list[str]]]


def test_each_model_is_asked_once_first(compare: Compare) -> None:
    servers = Network(lambda model, _: good(model))
    comparison, _ = compare(servers)
    assert servers.asked[:3] == ["tom", "moa-tom", "bon-tom"]
    assert comparison.left == []
    assert len(servers.asked) == 15


def test_a_model_that_fails_its_first_question_is_not_asked_again(compare: Compare) -> None:
    servers = Network(lambda model, _: BAD if model == "bon-tom" else good(model))
    _, said = compare(servers)
    assert servers.asked.count("bon-tom") == 1
    assert "bon-tom: 500: out of order; it is not asked again" in said
    assert servers.asked.count("moa-tom") == servers.asked.count("tom") == 5


def test_without_the_plain_model_nothing_is_spent_on_strategies(compare: Compare) -> None:
    servers = Network(lambda model, _: BAD if model == "tom" else good(model))
    with pytest.raises(RequestsFailed, match="tom failed, and without it there is nothing left"):
        compare(servers)
    assert servers.asked == ["tom"]


def test_without_any_strategy_the_plain_model_is_not_asked_on(compare: Compare) -> None:
    servers = Network(lambda model, _: good(model) if model == "tom" else BAD)
    with pytest.raises(RequestsFailed, match="bon-tom failed"):
        compare(servers)
    assert servers.asked == ["tom", "moa-tom", "bon-tom"]


def test_a_proven_model_may_fail_now_and_then(compare: Compare) -> None:
    servers = Network(lambda model, n: BAD if model == "moa-tom" and n in (2, 4) else good(model))
    compare(servers)
    assert servers.asked.count("moa-tom") == 5
    # and of an earlier run
    known = Record("q0", "bon-tom", True, "", 1, 3, 30, 10)
    servers = Network(lambda model, n: BAD if model == "bon-tom" and n == 1 else good(model))
    compare(servers, known)
    assert servers.asked.count("bon-tom") == 4


def test_three_failures_in_a_row_of_one_model(compare: Compare) -> None:
    servers = Network(lambda model, n: BAD if model == "moa-tom" and n > 1 else good(model))
    compare(servers)
    assert servers.asked.count("moa-tom") == 4


def test_a_proxy_that_is_down_costs_nothing(compare: Compare) -> None:
    servers = Network(lambda model, _: good(model), models=GONE)
    with pytest.raises(RequestsFailed, match=r"the proxy at http://127.0.0.1:4020/v1 does not"):
        compare(servers)
    assert servers.asked == []


@pytest.mark.parametrize(
    ("model", "named"), [("bon-tom", "the proxy at "), ("tom", "LiteLLM at http://127.0.0.1:4000")]
)
def test_a_server_that_goes_down_ends_it(compare: Compare, model: str, named: str) -> None:
    servers = Network(lambda _, __: BAD)

    def respond(asked: str, n: int) -> Response:
        if asked == model and n == 3:
            servers.models = GONE
            return GONE
        return good(asked)

    servers.respond = respond
    with pytest.raises(RequestsFailed, match=named) as stopped:
        compare(servers)
    assert servers.asked[-1] == model
    assert len(servers.asked) <= 9
    assert stopped.value.remedy == "go on"


def test_a_request_that_takes_too_long_is_one_failure(compare: Compare) -> None:
    servers = Network(lambda model, n: GONE if model == "bon-tom" and n == 3 else good(model))
    compare(servers)
    assert servers.asked.count("bon-tom") == 5


INFO = {"input_cost_per_token": 5e-07, "output_cost_per_token": 2e-06}


@pytest.mark.parametrize(
    ("rows", "known"),
    [
        ([{"model_name": "tom", "model_info": INFO}], {"tom": Prices(0.5, 2)}),
        # the most expensive one of several
        (
            [
                {"model_name": "tom", "model_info": INFO},
                {"model_name": "tom", "model_info": {**INFO, "output_cost_per_token": 1e-5}},
            ],
            {"tom": Prices(0.5, 10)},
        ),
        ([{"model_name": "moa-tom", "model_info": INFO}], {}),
        # unknown to LiteLLM
        ([{"model_name": "tom", "model_info": dict.fromkeys(INFO, 0)}], {}),
        ([{"model_name": "tom", "model_info": {**INFO, "input_cost_per_token": None}}], {}),
        ([{"model_name": "tom"}, None, 5], {}),
    ],
)
def test_the_prices_that_litellm_knows(rows: list[Any], known: dict[str, Prices]) -> None:
    assert prices.known({"data": rows}, ["tom"]) == known


@pytest.mark.parametrize("data", [None, [], {}, {"data": 5}, {"error": "no"}])
def test_an_answer_without_prices(data: Any) -> None:
    assert prices.known(data, ["tom"]) == {}


def begun(tmp_path: Path, known: dict[str, Prices], stated: Prices | None = None) -> Session:
    header = Header("abc", "/home/my questions.jsonl", tuple(s.model for s in SUBJECTS))
    comparison = Comparison(header, SUBJECTS, QUESTIONS, tmp_path / "answers.jsonl")
    options = Options([], prices=stated, save=tmp_path / "page.html")
    keys = smoke.Keys("proxy", "upstream")
    return Session(options, CONFIG, paths.system(), None, comparison, keys, known)


def test_it_says_what_it_will_spend(tmp_path: Path) -> None:
    # 5 questions: 500 tokens and the prompt for the plain model, ten times as many for a strategy
    tokens = 5 * (500 + 10 * 500 * 2)
    said = "15 requests to come, with about 40 upstream calls and "
    assert begun(tmp_path, {}).outlook == f"{said}{tokens} tokens, at an unknown price"
    known = {"tom": Prices(1, 3)}
    # half of the tokens are thought to be prompts
    cost = f"{tokens * 2 / 1e6:.2g}"
    assert begun(tmp_path, known).outlook == (
        f"{said}{tokens} tokens, for about {cost} (LiteLLM's prices)"
    )
    assert begun(tmp_path, known, Prices(1, 3)).outlook.endswith("(the stated prices)")


def test_the_command_that_repeats_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tracing, "versions", lambda *_: [("OptiLLM", "0.3.12")])
    origin = begun(tmp_path, {"tom": Prices(1, 3)}).origin
    assert origin.command == (
        "optictl compare --prompts '/home/my questions.jsonl' --models moa-tom --models bon-tom"
    )
    facts = dict(origin.facts)
    assert facts["versions"] == "OptiLLM 0.3.12"
    assert facts["prices"] == "tom: 1 a million prompt tokens, 3 completion tokens"
    assert summary.read(origin.header + "\n")[1] == []
