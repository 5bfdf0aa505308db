"""Names of LiteLLM that optictl does not know: a skip by name, and never a wrong verdict."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from optictl.deployment.config import Config
from optictl.litellm import judge, providers, read
from optictl.litellm.graph import Graph
from optictl.litellm.judge import Fault

OPTILLM = "http://127.0.0.1:4020/v1"
REAL = "http://10.0.0.7/v1"
KEY = "the-proxy-key-of-the-tests-0123"
Judge = Callable[[Graph], Iterator[Fault]]
ROUTES: list[Judge] = [judge.loops, judge.unprefixed, judge.not_enabled, judge.unserved]


def entry(name: str, model: str, base: str = "", more: str = "") -> str:
    where = f", api_base: '{base}'" if base else ""
    return (
        f"  - model_name: '{name}'\n"
        f"    litellm_params: {{model: '{model}'{where}, api_key: {KEY}, num_retries: 0{more}}}\n"
    )


MOA = entry("moa-jerry-xl", "openai/moa-jerry-xl", OPTILLM, ", timeout: 900")
JERRY = entry("jerry-xl", "openai/real", REAL)


def graph(*entries: str, rest: str = "", config: Config | None = None) -> Graph:
    text = "model_list:\n" + "".join(entries) + rest
    settings = read.load("litellm.yaml", {"litellm.yaml": text}.get, {})
    return Graph(settings, config or Config())


def statuses(faults: Iterator[Fault]) -> list[str]:
    return [fault.status for fault in faults]


def only(faults: Iterator[Fault]) -> Fault:
    (fault,) = faults
    return fault


def test_the_prefix_of_these_tests_is_unknown() -> None:
    assert not providers.is_known("new_provider")
    assert statuses(judge.loops(graph(MOA, JERRY))) == []


class TestProviderPrefix:
    def test_an_address_at_optillm_counts_whatever_the_prefix(self) -> None:
        judged = graph(MOA, entry("jerry-xl", "new_provider/moa-jerry-xl", OPTILLM))
        loop, unknown = judge.loops(judged)
        assert loop.status == "fail"
        assert "jerry-xl -> OptiLLM, as 'moa-jerry-xl' -> jerry-xl" in loop.found
        assert unknown.status == "skip"
        assert "the provider prefix new_provider" in unknown.found

    def test_names_behind_it_are_judged(self) -> None:
        judged = graph(MOA, JERRY, entry("plan", "new_provider/mcts-jerry-xl", OPTILLM))
        assert "'mcts' is not an enabled strategy" in next(judge.not_enabled(judged)).found

    def test_its_protocol_is_not_accused(self) -> None:
        judged = graph(entry("moa-jerry-xl", "new_provider/moa-jerry-xl", OPTILLM), JERRY)
        assert "new_provider" in only(judge.unprefixed(judged)).found
        assert statuses(judge.unprefixed(judged)) == ["skip"]

    @pytest.mark.parametrize("base", ["", REAL])
    @pytest.mark.parametrize("judged", ROUTES)
    def test_elsewhere_it_is_a_skip_by_name(self, judged: Judge, base: str) -> None:
        fault = only(judged(graph(MOA, entry("jerry-xl", "new_provider/real", base))))
        assert fault.status == "skip"
        assert fault.found == "optictl does not know the provider prefix new_provider"
        assert fault.always
        assert "update optictl" in fault.remedy

    def test_a_known_server_beside_it_serves_the_model(self) -> None:
        judged = graph(MOA, JERRY, entry("jerry-xl", "new_provider/real", REAL))
        assert statuses(judge.unserved(judged)) == ["skip"]

    def test_custom_llm_provider_is_a_prefix_too(self) -> None:
        more = ", custom_llm_provider: new_provider"
        judged = graph(MOA, entry("jerry-xl", "real", REAL, more))
        assert statuses(judge.unserved(judged)) == ["skip"]

    def test_a_provider_of_the_configuration_is_elsewhere(self) -> None:
        rest = "litellm_settings: {custom_provider_map: [{provider: new_provider}]}\n"
        judged = graph(MOA, entry("jerry-xl", "new_provider/real"), rest=rest)
        assert list(judge.unserved(judged)) == []

    def test_its_key_is_not_guessed(self) -> None:
        text = entry("plan", "new_provider/moa-jerry-xl", OPTILLM).replace(f"api_key: {KEY}, ", "")
        fault = only(judge.keys(graph(text, JERRY), KEY))
        assert fault.status == "skip"
        assert "which key LiteLLM sends for new_provider/" in fault.found

    def test_a_fallback_without_the_prefix_may_be_meant(self) -> None:
        rest = "router_settings: {fallbacks: [{tom: [jerry-xl]}]}\n"
        judged = graph(MOA, JERRY, entry("new_provider/tom", "openai/tom", REAL), rest=rest)
        assert "the provider prefix new_provider" in only(judge.loops(judged)).found


class TestModelWithoutProvider:
    def test_litellm_may_know_it(self) -> None:
        fault = only(judge.unserved(graph(MOA, entry("jerry-xl", "brand-new-9"))))
        assert fault.status == "warn"
        assert "unless it knows the provider of brand-new-9 (litellm.yaml:4)" in fault.found

    def test_a_wildcard_with_a_provider_may_match_it(self) -> None:
        judged = graph(MOA, entry("xai/*", "xai/*"))
        fault = only(judge.unserved(judged))
        assert fault.status == "skip"
        assert "the provider of the model jerry-xl, which may match xai/*" in fault.found

    def test_without_any_of_these_it_is_not_served(self) -> None:
        assert statuses(judge.unserved(graph(MOA))) == ["fail"]


class TestSettings:
    @pytest.mark.parametrize("judged", ROUTES[:3])
    @pytest.mark.parametrize(
        ("rest", "name"),
        [
            ("router_settings: {new_setting: 1}\n", "router_settings.new_setting"),
            ("general_settings: {model_redirect: {}}\n", "general_settings.model_redirect"),
            ("litellm_settings: {silent_copies: [x]}\n", "litellm_settings.silent_copies"),
        ],
    )
    def test_one_that_may_change_a_route_is_a_skip_by_name(
        self, judged: Judge, rest: str, name: str
    ) -> None:
        fault = only(judged(graph(MOA, JERRY, rest=rest)))
        assert fault.status == "skip"
        assert name in fault.found

    def test_a_base_model_may_be_served_by_it(self) -> None:
        fault = only(judge.unserved(graph(MOA, rest="router_settings: {new_setting: 1}\n")))
        assert fault.status == "skip"
        assert "serves jerry-xl depends on router_settings.new_setting" in fault.found

    @pytest.mark.parametrize(
        "rest",
        [
            "router_settings: {cooldown_time: 3, routing_strategy: least-busy}\n",
            "general_settings: {master_key: k, allowed_routes: [x], anything: 1}\n",
            "litellm_settings: {drop_params: true, cache: true, anything: 1}\n",
        ],
    )
    def test_others_are_not_accused(self, rest: str) -> None:
        for judged in ROUTES:
            assert list(judged(graph(MOA, JERRY, rest=rest))) == []

    @pytest.mark.parametrize("name", ["tier_router_config", "mirror_to", "new_fallbacks"])
    def test_so_is_one_of_an_entry(self, name: str) -> None:
        more = entry("tom", "openai/tom", REAL, f", {name}: x")
        fault = only(judge.loops(graph(MOA, JERRY, more)))
        assert fault.status == "skip"
        assert f"{name} of tom (litellm.yaml:6)" in fault.found


class TestRetryPolicy:
    @pytest.mark.parametrize("value", [0, 4])
    def test_litellm_ignores_an_unknown_name(self, value: int) -> None:
        rest = f"router_settings: {{retry_policy: {{TeapotErrorRetries: {value}}}}}\n"
        assert list(judge.repeats(graph(MOA, JERRY, rest=rest))) == []

    @pytest.mark.parametrize("name", sorted(judge.RETRY_NAMES))
    def test_a_known_one_counts(self, name: str) -> None:
        rest = f"router_settings: {{retry_policy: {{{name}: 2}}}}\n"
        assert statuses(judge.repeats(graph(MOA, JERRY, rest=rest))) == ["fail"]
