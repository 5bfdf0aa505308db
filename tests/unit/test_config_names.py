"""The configuration: the names of models and strategies, and the addresses, that it accepts."""

from __future__ import annotations

import pytest
import yaml

from optictl.deployment import config_yaml, model_names
from tests.unit.config_problems import only_problem, places, problems


class TestAddresses:
    @pytest.mark.parametrize(
        "host", ["0.0.0.0", "192.168.1.5", "::", "::1", "localhost", "127.0.0.2", "''"]
    )
    def test_it_listens_on_127_0_0_1_only(self, host: str) -> None:
        assert only_problem(f"listen: {{host: '{host.strip(chr(39))}'}}").path == "listen.host"

    @pytest.mark.parametrize(
        "url",
        [
            "https://api.openai.com/v1",
            "http://192.168.1.5:4000/v1",
            "http://localhost.example.org:4000/v1",
            "http://127.0.0.1.example.org/v1",
            "http://127.0.0.1:4000",
            "http://127.0.0.1:4000/",
            "http://127.0.0.1:4000/v2",
            "http://127.0.0.1:4000/v1/chat/completions",
            "http://127.0.0.1:4000/v1?",
            "http://127.0.0.1:4000/v1#",
            "http://127.0.0.1:4000/v1?key=x",
            "http://user:secret@127.0.0.1:4000/v1",
            "http://127.0.0.1:99999/v1",
            "ftp://127.0.0.1/v1",
            "127.0.0.1:4000/v1",
            "http:///v1",
            " http://127.0.0.1:4000/v1",
            "http://127.0.0.1:4000/v1 ",
            "http://127.0.0.1:4000/\nv1",
            "http://127.0.0.1:4000/\tv1",
            "",
        ],
    )
    def test_the_upstream_is_this_machine_with_v1(self, url: str) -> None:
        assert (
            only_problem(yaml.safe_dump({"upstream": {"base_url": url}})).path
            == "upstream.base_url"
        )

    @pytest.mark.parametrize(
        "url", ["http://localhost:4000/v1", "http://[::1]:4000/v1", "https://127.0.0.1:4443/v1"]
    )
    def test_other_ways_to_this_machine(self, url: str) -> None:
        assert config_yaml.parse(f"upstream: {{base_url: '{url}'}}", "f").upstream.base_url == url

    @pytest.mark.parametrize(
        "text",
        [
            "upstream: {base_url: 'http://127.0.0.1:4020/v1'}",
            "upstream: {base_url: 'http://127.0.0.1:4020/v1/'}",
            "upstream: {base_url: 'http://localhost:4020/v1'}",
            "listen: {port: 4000}",
            "listen: {port: 80}\nupstream: {base_url: 'http://127.0.0.1/v1'}",
        ],
    )
    def test_the_upstream_is_not_the_proxy_itself(self, text: str) -> None:
        problem = only_problem(text)
        assert problem.path == "upstream.base_url"
        assert "itself" in problem.message


class TestModelNames:
    @pytest.mark.parametrize(
        "name",
        [
            "moa-x",
            "moa",
            "moa-",
            "proxy-large",
            "none-x",
            "leap-1",
            "a&b",
            "a|b",
            "moa&bon-x",
            "auto",
            "a b",
            "-x",
            "ä",
            "x\n",
            "a,b",
            "Moa-x",
            "MOA-x",
            "Proxy-large",
        ],
    )
    def test_base_models_that_optillm_would_not_pass_on(self, name: str) -> None:
        among = problems(yaml.safe_dump({"model": "tom", "base_models": ["tom", name]}))
        alone = problems(yaml.safe_dump({"model": name}))
        assert [p.path for p in among] == ["base_models.1"]
        assert [p.path for p in alone] == ["model"]

    def test_an_empty_name(self) -> None:
        assert only_problem("base_models: [jerry-xl, '']").path == "base_models.1"

    @pytest.mark.parametrize(
        "name",
        [
            "jerry-xl",
            "gpt-4.1",
            "ollama/llama3:8b",
            "Moa",
            "Moax-y",
            "moax",
            "o_1@2024",
            "x-moa",
            "123",
            "y",
        ],
    )
    def test_base_models_that_pass(self, name: str) -> None:
        assert config_yaml.parse(yaml.safe_dump({"model": name}), "f").base_models == (name,)

    def test_the_model_is_a_base_model(self) -> None:
        problem = only_problem("model: tom\nbase_models:\n  - jerry-xl\n")
        assert "'tom' is not in base_models" in problem.message
        assert problem.line is not None


class TestStrategies:
    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("moe", "did you mean 'moa'"),
            ("self-consistency", "cannot be a strategy's name"),
            ("proxy", "is not a strategy"),
            ("none", "is not a strategy"),
            ("compact", "makes no upstream call"),
            ("MOA", "cannot be a strategy's name"),
            ("moa&bon", "cannot be a strategy's name"),
            ("zzz", "OptiLLM has no 'zzz'"),
        ],
    )
    def test_unknown(self, name: str, reason: str) -> None:
        problem = only_problem(f"strategies:\n  - moa\n  - {name}\n")
        assert reason in problem.message
        assert (problem.path, problem.line) == ("strategies.1", 3)

    def test_a_later_version_may_have_other_strategies(self) -> None:
        later = "optillm: {version: 0.9.0}\nstrategies: [moa, zzz]"
        assert config_yaml.parse(later, "f").strategies == ("moa", "zzz")

    def test_every_unknown_one_is_told(self) -> None:
        assert places("strategies:\n  - moe\n  - zzz\n  - proxy\n") == [
            (f"strategies.{i}", i + 2) for i in range(3)
        ]

    def test_a_plugin_file_may_bring_a_word_of_its_own(self) -> None:
        assert config_yaml.parse("plugins: [mine.py]\nstrategies: [moa, mine]", "f").strategies == (
            "moa",
            "mine",
        )

    def test_and_no_base_model_may_begin_with_it(self) -> None:
        problem = only_problem("model: mine-xl\nplugins: [mine.py]\nstrategies: [moa, mine]")
        assert (
            "base model 'mine-xl' begins with 'mine': OptiLLM reads that as a strategy"
            in problem.message
        )

    @pytest.mark.parametrize("name", model_names.CODE_EXECUTION)
    def test_what_runs_code_needs_a_permission(self, name: str) -> None:
        problem = only_problem(f"strategies:\n  - moa\n  - {name}\n")
        assert (problem.path, problem.line) == ("strategies.1", 3)
        assert problem.message.startswith(f"'{name}' {model_names.CODE_EXECUTION[name]}: ")
        assert problem.message.endswith("needs allow_code_execution: true")
        allowed = config_yaml.parse(f"allow_code_execution: true\nstrategies: [moa, {name}]", "f")
        assert allowed.strategies == ("moa", name)

    def test_each_that_runs_code_is_named(self) -> None:
        text = "strategies:\n  - z3\n  - moa\n  - coc\nallow_code_execution: false\n"
        assert places(text) == [("strategies.0", 2), ("strategies.2", 4)]

    @pytest.mark.parametrize("joined", ["moa&z3", "z3|moa", "moa|executecode&z3"])
    def test_a_part_that_runs_code_is_named(self, joined: str) -> None:
        told = [problem.message for problem in problems(f'strategies: ["{joined}"]')]
        assert any(m.startswith("'z3' runs Python code") for m in told)
        permitted = problems(f'allow_code_execution: true\nstrategies: ["{joined}"]')
        assert [p.message for p in permitted] == [f"'{joined}' cannot be a strategy's name"]

    def test_a_plugin_file_is_no_permission(self) -> None:
        problem = only_problem("plugins: [coc.py]\nstrategies: [moa, coc]")
        assert "needs allow_code_execution: true" in problem.message

    @pytest.mark.parametrize("value", ["yes please", "1", "null"])
    def test_a_permission_that_is_no_boolean_is_the_only_problem(self, value: str) -> None:
        problem = only_problem(f"strategies: [z3]\nallow_code_execution: {value}\n")
        assert problem.path == "allow_code_execution"

    def test_but_no_plugin_makes_the_way_out_a_strategy(self) -> None:
        assert only_problem("plugins: [mine.py]\nstrategies: [proxy]").path == "strategies.0"


class TestPublish:
    @pytest.mark.parametrize(
        "name", ["bon-fast", "mcts-jerry-xl", "Bon-fast", "proxy-fast", "router"]
    )
    def test_a_name_that_says_another_strategy(self, name: str) -> None:
        problem = only_problem(f"publish:\n  {name}: moa-jerry-xl\n")
        assert "looks like the strategy" in problem.message
        assert problem.path == f"publish.{name}"

    @pytest.mark.parametrize("name", ["moa-fast", "moa", "fast", "fast-moa", "bonfast"])
    def test_a_name_that_says_the_same_or_nothing(self, name: str) -> None:
        assert config_yaml.parse(f"publish:\n  {name}: moa-jerry-xl\n", "f").publish == {
            name: "moa-jerry-xl"
        }

    @pytest.mark.parametrize(
        ("name", "target", "reason"),
        [
            ("boost", "jerry-xl", "is not an enabled strategy on a base model"),
            ("boost", "moa-tom", "is not an enabled strategy on a base model"),
            ("boost", "mcts-jerry-xl", "is not an enabled strategy on a base model"),
            ("boost", "moa-bon-jerry-xl", "is not an enabled strategy on a base model"),
            ("jerry-xl", "moa-jerry-xl", "would loop"),
        ],
    )
    def test_refused(self, name: str, target: str, reason: str) -> None:
        problem = only_problem(f"publish:\n  {name}: {target}\n")
        assert reason in problem.message
        assert (problem.path, problem.line) == (f"publish.{name}", 2)

    def test_every_wrong_entry_is_told(self) -> None:
        assert places("publish:\n  a: b\n  ok: moa-jerry-xl\n  c: d\n") == [
            ("publish.a", 2),
            ("publish.c", 4),
        ]

    def test_published_are_all_pairs_and_the_extra_names(self) -> None:
        read = config_yaml.parse(
            "base_models: [jerry-xl, tom]\nstrategies: [moa, bon]\npublish: {boost: bon-tom}", "f"
        )
        assert read.published == {
            "moa-jerry-xl": "moa-jerry-xl",
            "bon-jerry-xl": "bon-jerry-xl",
            "moa-tom": "moa-tom",
            "bon-tom": "bon-tom",
            "boost": "bon-tom",
        }
