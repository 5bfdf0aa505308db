"""The configuration: its defaults are the specification; all errors of a bad file are reported."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from optictl.deployment import config, model_names, render
from optictl.deployment.config import Config
from optictl.errors import ConfigError, OptictlError, Problem


def problems(text: str) -> list[Problem]:
    """What is wrong with a configuration that must be refused."""
    with pytest.raises(ConfigError) as caught:
        config.parse(text, "optictl.yaml")
    assert caught.value.source == "optictl.yaml"
    assert caught.value.problems
    return caught.value.problems


def places(text: str) -> list[tuple[str, int | None]]:
    return [(problem.path, problem.line) for problem in problems(text)]


def only_problem(text: str) -> Problem:
    found = problems(text)
    assert len(found) == 1, [str(p) for p in found]
    return found[0]


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
        assert given.isolation == "sealed"
        assert given.allow_code_execution is False
        assert (given.publish, given.plugins) == ({}, ())
        assert (given.litellm.config, given.litellm.env) == (None, None)

    @pytest.mark.parametrize("text", ["", "\n", "# nothing but a comment\n", "null", "---\n", "{}"])
    def test_an_empty_file_is_the_defaults(self, text: str) -> None:
        assert config.parse(text, "optictl.yaml") == Config()

    def test_the_base_models_default_to_the_model(self) -> None:
        assert config.parse("model: tom", "f").base_models == ("tom",)
        assert config.parse("model: tom\nbase_models: []", "f").base_models == ("tom",)

    def test_a_trailing_slash_of_the_upstream_does_not_count(self) -> None:
        assert config.parse("upstream: {base_url: 'http://127.0.0.1:4000/v1/'}", "f") == Config()

    def test_names_given_twice_count_once(self) -> None:
        read = config.parse("strategies: [moa, bon, moa]\nbase_models: [jerry-xl, jerry-xl]", "f")
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
        ],
    )
    def test_out_of_range(self, text: str) -> None:
        assert only_problem(text).line == 1


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
        assert config.parse(f"upstream: {{base_url: '{url}'}}", "f").upstream.base_url == url

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
        assert config.parse(yaml.safe_dump({"model": name}), "f").base_models == (name,)

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
            ("MOA", "cannot be a strategy's name"),
            ("moa&bon", "cannot be a strategy's name"),
            ("zzz", "OptiLLM has no 'zzz'"),
        ],
    )
    def test_unknown(self, name: str, reason: str) -> None:
        problem = only_problem(f"strategies:\n  - moa\n  - {name}\n")
        assert reason in problem.message
        assert (problem.path, problem.line) == ("strategies.1", 3)

    def test_every_unknown_one_is_told(self) -> None:
        assert places("strategies:\n  - moe\n  - zzz\n  - proxy\n") == [
            (f"strategies.{i}", i + 2) for i in range(3)
        ]

    def test_a_plugin_file_may_bring_a_word_of_its_own(self) -> None:
        assert config.parse("plugins: [mine.py]\nstrategies: [moa, mine]", "f").strategies == (
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
        allowed = config.parse(f"allow_code_execution: true\nstrategies: [moa, {name}]", "f")
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
        assert config.parse(f"publish:\n  {name}: moa-jerry-xl\n", "f").publish == {
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
        read = config.parse(
            "base_models: [jerry-xl, tom]\nstrategies: [moa, bon]\npublish: {boost: bon-tom}", "f"
        )
        assert read.published == {
            "moa-jerry-xl": "moa-jerry-xl",
            "bon-jerry-xl": "bon-jerry-xl",
            "moa-tom": "moa-tom",
            "bon-tom": "bon-tom",
            "boost": "bon-tom",
        }


class TestBadFiles:
    @pytest.mark.parametrize(
        ("text", "line"),
        [
            ("a: [", 1),
            ("listen:\n\t port: 1", 2),
            ("model: a\n---\nmodel: b", 2),
            ("? [a]\n: b", 1),
            ("a: !!python/object/apply:os.getcwd []", 1),
            ("model: a\nb: !mine c", 2),
            ("model: \x00", None),
            ("model: 2024-13-45", None),
            ("model: !!int many", None),
            ("listen: {port: " + "1" * 5000 + "}", None),
            ("[" * 5000, None),
        ],
    )
    def test_are_one_problem(self, text: str, line: int | None) -> None:
        problem = only_problem(text)
        assert "YAML" in problem.message
        assert line is None or problem.line == line

    @pytest.mark.parametrize("text", ["[]", "- model: x", "5", "jerry-xl", "'null'", "&a [*a]"])
    def test_the_root_is_a_mapping(self, text: str) -> None:
        assert "mapping" in only_problem(text).message

    def test_a_file_that_refers_to_itself(self) -> None:
        assert places("publish: &a\n  x: *a")[0][0].startswith("publish")

    def test_a_file_that_unfolds_without_end(self) -> None:
        text = "a0: &a0 [x, x]\n" + "".join(
            f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 6)
        )
        assert {p.path for p in problems(text + "listen: *a5\n")} == {
            "listen",
            *(f"a{i}" for i in range(6)),
        }

    def test_a_value_is_quoted_in_short(self) -> None:
        assert len(str(only_problem("listen: {port: 0x" + "f" * 5000 + "}"))) < 200
        assert len(str(only_problem("approach: " + "x" * 5000))) < 200


class TestRoundTrip:
    FULL = """\
listen: {port: 4120}
upstream: {base_url: "http://localhost:4100/v1", max_retries: 2}
model: tom
base_models: [tom, "123", "ollama/llama3:8b", "null", "2024-01-01", "1e3", "end:"]
approach: auto
strategies: [re2, moa, mine]
optillm: {version: 0.3.12, profile: full}
publish: {boost-plan: moa-tom, "1": re2-123}
plugins: [plugins/mine.py, "/opt/my plugins/it's #1.py"]
litellm: {config: /etc/litellm/config.yaml, env: "/etc/litellm/env: 2"}
allow_code_execution: true
timeouts: {request: 900, drain: 0}
limits: {max_upstream_calls: 10, max_body_bytes: 2048}
isolation: loopback
"""

    @pytest.mark.parametrize("text", ["", FULL], ids=["defaults", "everything"])
    def test_what_is_rendered_reads_back_as_the_same(self, text: str) -> None:
        read = config.parse(text, "f")
        assert config.parse(render.configuration(read), "again") == read

    def test_it_names_every_key(self) -> None:
        """Who opens the file that `init` writes sees all that can be set."""
        assert keys(yaml.safe_load(render.configuration(Config()))) == keys(
            Config().model_dump(mode="json")
        )


def keys(tree: Any) -> set[str]:
    if not isinstance(tree, dict):
        return set()
    return {*tree, *(f"{name}.{below}" for name, value in tree.items() for below in keys(value))}


class TestSchema:
    def test_it_is_a_schema_that_names_every_key(self) -> None:
        schema = config.schema()
        assert schema["$schema"].startswith("https://json-schema.org/")
        assert schema["type"] == "object"
        assert schema["additionalProperties"] is False
        named = set()
        for name, part in schema["properties"].items():
            reference = part.get("$ref") or next((p["$ref"] for p in part.get("allOf", [])), None)
            section = schema["$defs"][reference.rpartition("/")[2]] if reference else {}
            named |= {name, *(f"{name}.{below}" for below in section.get("properties", {}))}
            assert not section or section["additionalProperties"] is False
        assert named == keys(Config().model_dump(mode="json"))

    def test_every_reference_leads_somewhere(self) -> None:
        schema = config.schema()

        def references(node: Any) -> set[str]:
            if isinstance(node, dict):
                own = {node["$ref"]} if "$ref" in node else set()
                return own.union(*map(references, node.values()))
            return set().union(*map(references, node)) if isinstance(node, list) else set()

        assert {ref.removeprefix("#/$defs/") for ref in references(schema)} == set(schema["$defs"])

    def test_its_defaults_are_those_in_force(self) -> None:
        properties = config.schema()["properties"]
        assert properties["model"]["default"] == "jerry-xl"
        assert properties["strategies"]["default"] == [
            "moa",
            "bon",
            "plansearch",
            "self_consistency",
        ]
        assert properties["listen"]["default"] == {"host": "127.0.0.1", "port": 4020}


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=12)
    | st.dates()
    | st.binary(max_size=4)
)
_KEYS = st.sampled_from(
    [*Config.model_fields, "port", "base_url", "request", "version", "config"]
) | st.text(max_size=6)
_TREES = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(_KEYS | st.integers(), inner, max_size=6)
    ),
    max_leaves=20,
)


class TestAnything:
    @staticmethod
    def judge(text: str) -> None:
        """Either a configuration that renders, or a list of problems; nothing else ever."""
        try:
            read = config.parse(text, "f")
        except ConfigError as refused:
            told = [str(problem) for problem in refused.problems]
        else:
            assert config.parse(render.configuration(read), "again") == read
            return
        assert told
        assert all(told)

    @given(st.dictionaries(_KEYS, _TREES, max_size=6) | _TREES)
    def test_that_yaml_can_hold(self, tree: Any) -> None:
        self.judge(yaml.safe_dump(tree, allow_unicode=True))

    @given(st.text(max_size=60) | st.text(alphabet="&*!|>-?:[]{},#%@`'\"\n\t ~01aé", max_size=40))
    def test_that_text_can_hold(self, text: str) -> None:
        self.judge(text)

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "model": st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,8}", fullmatch=True),
                "plugins": st.lists(st.text(min_size=1, max_size=20), max_size=3),
                "publish": st.dictionaries(
                    st.text(min_size=1, max_size=8), st.just("moa-jerry-xl"), max_size=2
                ),
                "litellm": st.fixed_dictionaries({"config": st.none() | st.text(max_size=20)}),
            },
        )
    )
    def test_that_may_be_valid(self, tree: dict[str, Any]) -> None:
        self.judge(yaml.safe_dump(tree, allow_unicode=True))


class TestAnotherVersion:
    """What an upgrade writes into the operator's file: one word, and nothing else."""

    @pytest.mark.parametrize(
        ("text", "edited"),
        [
            ("optillm: {version: 0.3.12}  # mine\n", "optillm: {version: 0.3.13}  # mine\n"),
            (
                'optillm:\n  version: "0.3.12"   # pinned\nmodel: jerry-xl\n',
                "optillm:\n  version: 0.3.13   # pinned\nmodel: jerry-xl\n",
            ),
            ("optillm: {profile: proxy}\n", "optillm: {version: 0.3.13, profile: proxy}\n"),
            (
                "optillm:\n  # why\n  profile: proxy\n",
                "optillm:\n  # why\n  version: 0.3.13\n  profile: proxy\n",
            ),
            (
                "# mine\nmodel: jerry-xl\n",
                "# mine\nmodel: jerry-xl\n\noptillm:\n  version: 0.3.13\n",
            ),
            ("", "\n\noptillm:\n  version: 0.3.13\n"),
            ("optillm: {version: 0.3.13}\n", "optillm: {version: 0.3.13}\n"),
        ],
    )
    def test_every_other_sign_stays(self, text: str, edited: str) -> None:
        assert config.with_version(text, "optictl.yaml", "0.3.13") == edited
        assert config.parse(edited, "optictl.yaml").optillm.version == "0.3.13"

    def test_a_version_that_yaml_would_take_for_a_number_is_quoted(self) -> None:
        assert (
            config.with_version("optillm: {version: 0.3.12}\n", "x", "1.0")
            == 'optillm: {version: "1.0"}\n'
        )

    def test_what_cannot_be_edited_is_told(self) -> None:
        with pytest.raises(OptictlError, match=r"cannot set optillm\.version"):
            config.with_version("optillm: &x {}\n", "optictl.yaml", "0.3.13")


@pytest.mark.parametrize("path", ["metrics.prom", "/var/lib/metrics", "/var/lib/a\\nb.prom"])
def test_metrics_that_nobody_would_collect(path: str) -> None:
    assert (
        "absolute path that ends in .prom"
        in only_problem(f'monitoring: {{textfile: "{path}"}}').message
    )
