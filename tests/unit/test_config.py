"""The configuration: its defaults are the specification; all errors of a bad file are reported."""

from __future__ import annotations

import pytest

from optictl.deployment import config_yaml, render
from optictl.deployment.config import Config
from tests.unit.config_problems import only_problem, places


class TestDefaults:
    """SPECIFICATION.md, line by line, and DESIGN section 5 for what it leaves open."""

    def test_the_specification(self) -> None:
        given = Config()
        assert given.listen.host == "127.0.0.1"
        assert given.listen.port == 4020
        assert given.upstream.base_url == "http://127.0.0.1:4000/v1"
        assert given.approach == "proxy"
        assert given.model == "jerry-xl"
        assert given.strategies == ("moa", "bon", "plansearch", "self_consistency")
        assert given.optillm.version == "0.3.12"

    def test_what_the_design_adds(self) -> None:
        given = Config()
        assert given.base_models == ("jerry-xl",)
        assert given.upstream.max_retries == 0
        assert given.optillm.profile == "proxy"
        assert (given.timeouts.request, given.timeouts.drain) == (600, 300)
        assert (given.limits.max_upstream_calls, given.limits.max_body_bytes) == (64, 4_194_304)
        assert (given.limits.parallel_calls, given.streaming.progress) == (16, "off")
        assert given.isolation == "sealed"
        assert given.allow_code_execution is False
        assert (given.publish, given.plugins) == ({}, ())
        assert (given.litellm.config, given.litellm.env) == (None, None)

    @pytest.mark.parametrize("text", ["", "\n", "# nothing but a comment\n", "null", "---\n", "{}"])
    def test_an_empty_file_is_the_defaults(self, text: str) -> None:
        assert config_yaml.parse(text, "optictl.yaml") == Config()

    def test_the_base_models_default_to_the_model(self) -> None:
        assert config_yaml.parse("model: tom", "f").base_models == ("tom",)
        assert config_yaml.parse("model: tom\nbase_models: []", "f").base_models == ("tom",)

    def test_a_trailing_slash_of_the_upstream_does_not_count(self) -> None:
        assert (
            config_yaml.parse("upstream: {base_url: 'http://127.0.0.1:4000/v1/'}", "f") == Config()
        )

    def test_names_given_twice_count_once(self) -> None:
        read = config_yaml.parse(
            "strategies: [moa, bon, moa]\nbase_models: [jerry-xl, jerry-xl]", "f"
        )
        assert read.strategies == ("moa", "bon")
        assert read.base_models == ("jerry-xl",)


class TestEveryProblemAtOnce:
    TEXT = """\
listen:
  host: 0.0.0.0
  port: 70000
upstream:
  base_url: http://192.0.2.1:4000/v1
  max_retrys: 1
model: moa-x
base_models:
  - moa-x
  - a&b
approach: moa
strategies:
  - moe
  - proxy
publish:
  boost: nosuch
timeouts:
  request: soon
optillm:
  version: 3
"""

    def test_each_with_its_line_and_path(self) -> None:
        expected = {
            ("listen.host", 2),
            ("listen.port", 3),
            ("upstream.base_url", 5),
            ("upstream.max_retrys", 6),
            ("model", 7),
            ("base_models.0", 9),
            ("base_models.1", 10),
            ("approach", 11),
            ("strategies.0", 13),
            ("strategies.1", 14),
            ("timeouts.request", 18),
            ("optillm.version", 20),
        }
        assert expected <= set(places(self.TEXT))

    def test_in_the_order_of_the_file(self) -> None:
        lines = [line for _, line in places(self.TEXT)]
        assert lines == sorted(lines, key=lambda line: line or 0)

    def test_a_wrong_value_does_not_hide_what_contradicts_another_key(self) -> None:
        found = places(
            "listen:\n  port: 70000\nstrategies:\n  - moe\npublish:\n  x: moa-tom\n"
            "base_models: [tom]\n"
        )
        assert {("listen.port", 2), ("strategies.0", 4), ("base_models", 7)} <= set(found)

    def test_one_mistake_is_told_once(self) -> None:
        assert only_problem("model: 5").path == "model"
        assert only_problem("model: ''").path == "model"
        assert only_problem("model: moa-x").path == "model"

    def test_as_text_it_has_line_path_and_reason(self) -> None:
        assert (
            str(only_problem("listen:\n  prot: 1"))
            == "line 2: listen.prot: unknown key; did you mean 'port'?"
        )


class TestKeys:
    @pytest.mark.parametrize(
        ("text", "path", "meant"),
        [
            ("upstraem: {}", "upstraem", "upstream"),
            ("listen: {prot: 4020}", "listen.prot", "port"),
            ("limits: {max_upstream_call: 3}", "limits.max_upstream_call", "max_upstream_calls"),
            ("timeouts: {requests: 3}", "timeouts.requests", "request"),
        ],
    )
    def test_unknown_with_a_suggestion(self, text: str, path: str, meant: str) -> None:
        problem = only_problem(text)
        assert problem.path == path
        assert "unknown key" in problem.message
        assert f"did you mean {meant!r}" in problem.message

    def test_unknown_and_like_nothing(self) -> None:
        assert only_problem("zzz: 1").message == "unknown key"

    @pytest.mark.parametrize("text", ["1: x", "on: x", "null: x", "listen: {1: x}"])
    def test_that_are_no_text(self, text: str) -> None:
        assert "text" in only_problem(text).message

    @pytest.mark.parametrize(
        ("text", "place"),
        [
            ("model: a\nmodel: b", ("model", 2)),
            ("listen:\n  port: 4020\n  port: 4021", ("listen.port", 3)),
            ("publish:\n  x: moa-jerry-xl\n  x: bon-jerry-xl", ("publish.x", 3)),
        ],
    )
    def test_twice(self, text: str, place: tuple[str, int]) -> None:
        assert places(text) == [place]
        assert "twice" in only_problem(text).message


class TestTypes:
    @pytest.mark.parametrize(
        "text",
        [
            "listen: 5",
            "listen: []",
            "timeouts:",
            "listen: {port: '4020'}",
            "listen: {port: 4020.0}",
            "listen: {port: true}",
            "model: 7",
            "model: [jerry-xl]",
            "strategies: moa",
            "strategies: {moa: bon}",
            "strategies: []",
            "strategies: [1]",
            "base_models: ''",
            "base_models: 0",
            "base_models: {}",
            "base_models: false",
            "plugins: plugin.py",
            "plugins: [5]",
            "publish: [moa-jerry-xl]",
            "publish: {x: 1}",
            "publish: {1: moa-jerry-xl}",
            "optillm: {version: 0.4}",
            "isolation: no",
            "litellm: {config: 5}",
            "timeouts: {request: 600.5}",
            "effect: true",
            "effect: {samples: 1}",
            "streaming: off",
            "streaming: {progress: on}",
            "streaming: {progress: 0}",
            "streaming: {progress: thinking}",
            "limits: {parallel_calls: true}",
        ],
    )
    def test_wrong_is_one_problem_in_words_for_people(self, text: str) -> None:
        problem = only_problem(text)
        assert problem.line == 1
        assert problem.path.split(".")[0] == text.split(":")[0]
        for jargon in ("tuple", "dictionary", "instance of", "validation", "[key]", "None"):
            assert jargon not in str(problem), str(problem)

    @pytest.mark.parametrize(
        "text",
        [
            "listen: {port: 0}",
            "listen: {port: 65536}",
            "upstream: {max_retries: -1}",
            "timeouts: {request: 0}",
            "timeouts: {drain: -1}",
            "limits: {max_upstream_calls: 0}",
            "limits: {max_body_bytes: 10}",
            "limits: {parallel_calls: 0}",
            "limits: {parallel_calls: 65}",
            "effect: {warn_percent: 0}",
            "effect: {fail_percent: 101}",
            "effect: {rating_tokens: 1}",
            "effect: {at_least: 0}",
        ],
    )
    def test_out_of_range(self, text: str) -> None:
        assert only_problem(text).line == 1


@pytest.mark.parametrize("path", ["metrics.prom", "/var/lib/metrics", "/var/lib/a\\nb.prom"])
def test_metrics_that_nobody_would_collect(path: str) -> None:
    assert (
        "absolute path that ends in .prom"
        in only_problem(f'monitoring: {{textfile: "{path}"}}').message
    )


@pytest.mark.parametrize(
    "text",
    ["effect: {warn_percent: 60}", "effect: {fail_percent: 9}", "effect: {warn_percent: 51}"],
)
def test_a_failure_before_the_warning(text: str) -> None:
    problem = only_problem(text)
    assert problem.path == "effect.fail_percent"
    assert problem.message == "must be at least warn_percent"
    assert problem.line == 1


@pytest.mark.parametrize(
    ("word", "progress"),
    [
        ("off", "off"),
        ("'off'", "off"),
        ("no", "off"),
        ("false", "off"),
        ("reasoning", "reasoning"),
    ],
)
def test_off_without_quotes_is_not_false(word: str, progress: str) -> None:
    read = config_yaml.parse(f"streaming: {{progress: {word}}}", "x")
    assert read.streaming.progress == progress
    assert config_yaml.parse(render.configuration(read), "x") == read


def test_both_at_the_same_percentage_only_fail() -> None:
    effect = config_yaml.parse("effect: {warn_percent: 50}", "x").effect
    assert (effect.warn_percent, effect.fail_percent) == (50, 50)
