"""What the judge says of a configuration: the way, the line, the remedy; and when it is silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import pytest

from optictl.deployment import render
from optictl.deployment.config import Config
from optictl.deployment.paths import system
from optictl.litellm import judge, read
from optictl.litellm.graph import Graph, is_local
from optictl.litellm.judge import Fault

KEY = "the-proxy-key-of-the-tests-0123"
GOOD = """\
model_list:
  - model_name: moa-jerry-xl
    litellm_params:
      model: custom_openai/moa-jerry-xl
      api_base: http://127.0.0.1:4020/v1
      api_key: os.environ/KEY
      num_retries: 0
      max_retries: 0
      timeout: 630
  - model_name: jerry-xl
    litellm_params: {model: openai/real, api_base: http://10.0.0.7/v1, api_key: sk-real}
"""
ENVIRONMENT = {"KEY": KEY}


def graph(
    text: str,
    environment: Mapping[str, str] | None = ENVIRONMENT,
    config: Config | None = None,
    **files: str,
) -> Graph:
    texts = {"/etc/litellm.yaml": text, **{f"/etc/{name}.yaml": one for name, one in files.items()}}
    return Graph(
        read.load("/etc/litellm.yaml", texts.get, environment),
        config or Config(),
        frozenset({"vm", "vm.lan", "10.0.0.1"}),
    )


def keys(judged: Graph) -> Iterator[Fault]:
    return judge.keys(judged, KEY)


JUDGES: list[Callable[[Graph], Iterator[Fault]]] = [
    judge.loops,
    judge.duplicates,
    judge.reached,
    judge.apis,
    judge.unprefixed,
    judge.not_enabled,
    judge.unserved,
    judge.repeats,
    keys,
]


def every(judged: Graph) -> list[Fault]:
    return [fault for one in JUDGES for fault in one(judged)]


def test_a_good_configuration_is_not_accused() -> None:
    assert every(graph(GOOD)) == []


@pytest.mark.parametrize("bases", [("jerry-xl",), ("jerry-xl", "tom")])
def test_what_render_litellm_prints_is_not_accused(bases: tuple[str, ...]) -> None:
    config = Config(base_models=bases, publish={"boost": "moa-jerry-xl"})
    text = render.litellm(config, system())
    for base in bases:
        text += (
            f"  - {{model_name: {base}, "
            f"litellm_params: {{model: openai/{base}, api_base: 'http://10.0.0.7/v1'}}}}\n"
        )
    assert every(graph(text, {render.LITELLM_KEY_VARIABLE: KEY}, config)) == []


@pytest.mark.parametrize(
    ("more", "way", "line"),
    [
        (
            "router_settings:\n  fallbacks:\n    - jerry-xl: [moa-jerry-xl]\n",
            "jerry-xl -> [fallback] moa-jerry-xl -> OptiLLM -> jerry-xl",
            14,
        ),
        (
            "litellm_settings:\n  default_fallbacks: [moa-jerry-xl]\n",
            "jerry-xl -> [default fallback] moa-jerry-xl -> OptiLLM -> jerry-xl",
            13,
        ),
        (
            "router_settings:\n  context_window_fallbacks:\n    - jerry-xl: [moa-jerry-xl]\n",
            "jerry-xl -> [context window fallback] moa-jerry-xl -> OptiLLM -> jerry-xl",
            14,
        ),
        (
            (
                "router_settings:\n  model_group_alias:\n"
                "    jerry-xl: {model: moa-jerry-xl, hidden: true}\n"
            ),
            "jerry-xl -> [alias] moa-jerry-xl -> OptiLLM -> jerry-xl",
            14,
        ),
        (
            (
                "  - model_name: jerry-xl\n"
                "    litellm_params: {model: openai/moa-jerry-xl, api_base: 'http://vm.lan:4020'}\n"
            ),
            "jerry-xl -> OptiLLM, as 'moa-jerry-xl' -> jerry-xl",
            12,
        ),
        (
            "router_settings:\n  fallbacks: [{jerry-xl: [tom]}, {tom: [moa-jerry-xl]}]\n"
            "  model_group_alias: {tom: jerry-xl}\n",
            "jerry-xl -> [fallback] tom -> [fallback] moa-jerry-xl -> OptiLLM -> jerry-xl",
            13,
        ),
    ],
)
def test_a_loop_is_told_with_its_way_and_its_line(more: str, way: str, line: int) -> None:
    faults = list(judge.loops(graph(GOOD + more)))
    assert [f.found for f in faults] == [f"{way} (/etc/litellm.yaml:{line})"]
    assert f"/etc/litellm.yaml:{line}" in faults[0].remedy
    assert faults[0].status == "fail"


def test_an_entry_of_an_included_file_is_told_with_that_file() -> None:
    included = "router_settings:\n  fallbacks:\n  - jerry-xl: [moa-jerry-xl]\n"
    (fault,) = judge.loops(graph(f"include: [more.yaml]\n{GOOD}", more=included))
    assert "(/etc/more.yaml:3)" in fault.found


def test_an_address_without_v1_is_told() -> None:
    (fault,) = judge.unprefixed(graph(GOOD.replace("4020/v1", "4020")))
    assert fault.found.startswith(
        "moa-jerry-xl -> OptiLLM calls http://127.0.0.1:4020/chat/completions"
    )
    assert "write api_base: http://127.0.0.1:4020/v1" in fault.remedy


@pytest.mark.parametrize(
    ("model", "judged", "reason"),
    [
        ("openai/jerry-xl", judge.unprefixed, "it has no strategy prefix"),
        ("openai/Moa-jerry-xl", judge.unprefixed, "lower case only"),
        ("anthropic/moa-jerry-xl", judge.unprefixed, "uses the protocol of anthropic"),
        ("openai/mcts-jerry-xl", judge.not_enabled, "'mcts' is not an enabled strategy"),
        ("openai/moa&bon-jerry-xl", judge.not_enabled, "combines strategies"),
        ("openai/moa-bon-jerry-xl", judge.not_enabled, "'moa-bon' is not an enabled strategy"),
        ("openai/moa-tom", judge.unserved, "'tom' is not in base_models"),
        (
            "openai/moa-proxy-large",
            judge.unserved,
            "begins with 'proxy': OptiLLM reads that as a strategy",
        ),
        ("openai/moa-", judge.unserved, "no base model after"),
        ("moa-jerry-xl", judge.unserved, "LiteLLM ignores plan"),
    ],
)
def test_a_name_that_the_door_refuses(
    model: str, judged: Callable[[Graph], Iterator[Fault]], reason: str
) -> None:
    more = (
        "  - model_name: plan\n"
        "    litellm_params:\n"
        f"      {{model: '{model}', api_base: 'http://127.0.0.1:4020/v1', api_key: k}}\n"
    )
    faults = list(judged(graph(GOOD + more)))
    assert len(faults) == 1
    assert reason in faults[0].found
    assert "/etc/litellm.yaml:12" in faults[0].found
    assert faults[0].remedy


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (GOOD.replace("model_name: jerry-xl", "model_name: tom"), "nothing serves jerry-xl"),
        (
            GOOD.replace("http://10.0.0.7/v1", "http://localhost:4020/v1"),
            "only OptiLLM itself serves jerry-xl",
        ),
    ],
)
def test_a_base_model_that_nobody_serves(text: str, found: str) -> None:
    assert found in [f.found for f in judge.unserved(graph(text))]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            GOOD.replace("num_retries: 0", "num_retries: 2"),
            "tried up to 3 times: num_retries is 2 in the entry",
        ),
        (GOOD.replace("num_retries: 0", "num_retries: '1'"), "tried up to 2 times"),
        (
            GOOD.replace("      num_retries: 0\n", "") + "litellm_settings: {num_retries: 3}\n",
            "3 in litellm_settings",
        ),
        (
            GOOD.replace("      num_retries: 0\n", "")
            + "router_settings: {num_retries: 1}\nlitellm_settings: {num_retries: 3}\n",
            "1 in router_settings",
        ),
        (GOOD.replace("max_retries: 0", "max_retries: 4"), "tried up to 5 times: max_retries is 4"),
        (
            GOOD + "router_settings: {retry_policy: {InternalServerErrorRetries: 2}}\n",
            "2 in router_settings.retry_policy",
        ),
        (
            GOOD + "router_settings:\n"
            "  model_group_retry_policy: {moa-jerry-xl: {TimeoutErrorRetries: 1}}\n",
            "1 in router_settings.model_group_retry_policy",
        ),
        (GOOD.replace("timeout: 630", "timeout: 30"), "gives up after 30 s (timeout in the entry)"),
        (
            GOOD.replace("timeout: 630", "stream_timeout: 60"),
            "gives up after 60 s (stream_timeout in the entry)",
        ),
        (
            GOOD.replace("      timeout: 630\n", "") + "router_settings: {timeout: 45}\n",
            "gives up after 45 s (timeout in",
        ),
        (
            GOOD.replace("      timeout: 630\n", "") + "litellm_settings: {request_timeout: 50}\n",
            "gives up after 50 s",
        ),
    ],
)
def test_what_repeats_a_strategy(text: str, reason: str) -> None:
    (fault,) = judge.repeats(graph(text))
    assert reason in fault.found
    assert "(/etc/litellm.yaml:2)" in fault.found
    assert fault.status == "fail"


def test_litellms_own_retries_are_a_warning() -> None:
    (fault,) = judge.repeats(graph(GOOD.replace("      num_retries: 0\n", "")))
    assert "num_retries is 2 by default" in fault.found
    assert fault.status == "warn"


def test_the_remedy_of_a_policy_is_at_its_own_line() -> None:
    more = "router_settings:\n  retry_policy:\n    TimeoutErrorRetries: 3\n"
    (fault,) = judge.repeats(graph(GOOD + more))
    assert "tried up to 4 times" in fault.found
    assert fault.remedy == "at /etc/litellm.yaml:14: write TimeoutErrorRetries: 0"


@pytest.mark.parametrize(("seconds", "faults"), [(599, 1), (600, 0), (601, 0)])
def test_a_timeout_is_long_enough_from_optillms_own_on(seconds: int, faults: int) -> None:
    found = list(judge.repeats(graph(GOOD.replace("timeout: 630", f"timeout: {seconds}"))))
    assert len(found) == faults


@pytest.mark.parametrize(
    "more",
    [
        "router_settings: {num_retries: 5}\n",
        "router_settings: {retry_policy: {BadRequestErrorRetries: 0}}\n",
        "router_settings: {model_group_retry_policy: {jerry-xl: {TimeoutErrorRetries: 3}}}\n",
        "litellm_settings: {request_timeout: 10}\n",
    ],
)
def test_what_the_entry_outranks_repeats_nothing(more: str) -> None:
    assert list(judge.repeats(graph(GOOD + more))) == []


@pytest.mark.parametrize(
    ("text", "environment", "reason", "status"),
    [
        (GOOD.replace("      api_key: os.environ/KEY\n", ""), {}, "sends no key", "fail"),
        (GOOD.replace("os.environ/KEY", "''"), {}, "sends no key", "fail"),
        (GOOD.replace("os.environ/KEY", "sk-123"), {}, "begins with sk-", "fail"),
        (GOOD, {"KEY": "sk-456"}, "begins with sk-", "fail"),
        (GOOD, {"KEY": "another"}, "sends a key that is not the proxy key", "fail"),
        (GOOD, {"KEY": ""}, "sends no key", "fail"),
        (GOOD, {}, "is in KEY, whose value is not known", "skip"),
        (GOOD, None, "is in KEY, whose value is not known", "skip"),
        (
            GOOD.replace("      api_key: os.environ/KEY\n", ""),
            {"OPENAI_API_KEY": "other"},
            "sends a key that is not the proxy key",
            "fail",
        ),
        (GOOD.replace("      api_key: os.environ/KEY\n", ""), None, "is in OPENAI_API_KEY", "skip"),
    ],
)
def test_a_key_that_optillm_would_refuse(
    text: str, environment: dict[str, str] | None, reason: str, status: str
) -> None:
    (fault,) = judge.keys(graph(text, environment), KEY)
    assert reason in fault.found
    assert fault.status == status
    for secret in ("sk-123", "sk-456", "another", KEY):
        assert (
            secret
            not in fault.found.replace("sends a key that is not the proxy key", "")
            + fault.remedy
            + fault.cause
        )


def test_without_the_proxy_key_any_key_may_be_right() -> None:
    assert list(judge.keys(graph(GOOD, {"KEY": "another"}), None)) == []


def test_the_own_environment_counts_for_a_variable_without_a_value() -> None:
    assert list(judge.keys(graph(GOOD, None), KEY, {"KEY": KEY})) == []
    (fault,) = judge.keys(graph(GOOD, None), KEY, {"KEY": "another-key"})
    assert fault.status == "warn"
    assert "KEY, which is not the proxy key in the environment of this command" in fault.found
    assert "another-key" not in fault.found + fault.remedy + fault.cause
    (fault,) = judge.keys(graph(GOOD, None), None, {"KEY": KEY})
    assert fault.status == "skip"


def test_litellms_environment_counts_before_the_own_one() -> None:
    assert list(judge.keys(graph(GOOD), KEY, {"KEY": "another"})) == []


@pytest.mark.parametrize(
    ("text", "found", "status"),
    [
        (
            GOOD + "model_list: []\n",
            "model_list is twice, at /etc/litellm.yaml:1 and /etc/litellm.yaml:12",
            "fail",
        ),
        (
            GOOD.replace("      timeout: 630\n", "      timeout: 630\n      timeout: 640\n"),
            "timeout is twice, at /etc/litellm.yaml:9 and /etc/litellm.yaml:10",
            "warn",
        ),
    ],
)
def test_a_key_that_is_twice_is_told_with_both_lines(text: str, found: str, status: str) -> None:
    (fault,) = judge.duplicates(graph(text))
    assert (fault.found, fault.status) == (found, status)


def test_what_a_merge_key_brings_is_not_twice() -> None:
    text = GOOD + "x: &x {a: 1}\ny: {<<: *x, a: 2}\n"
    assert list(judge.duplicates(graph(text))) == []


@pytest.mark.parametrize("provider", ["openai", "custom_openai", "hosted_vllm"])
def test_an_entry_with_openai_is_a_warning_that_says_why(provider: str) -> None:
    text = GOOD.replace("custom_openai/moa", f"{provider}/moa")
    faults = list(judge.apis(graph(text)))
    assert [fault.status for fault in faults] == (["warn"] if provider in judge.APIS_LOST else [])
    for fault in faults:
        assert "/v1/responses" in fault.found
        assert "write model: custom_openai/moa-jerry-xl" in fault.remedy


class TestReached:
    """Names that do not arrive, each with its line. Real LiteLLMs: tests/integration/litellm."""

    def only(self, text: str, environment: Mapping[str, str] | None = ENVIRONMENT) -> list[Fault]:
        config = Config(strategies=("moa",))
        return list(judge.reached(graph(text, environment, config)))

    @pytest.mark.parametrize(
        "base",
        [
            "http://127.0.0.1:4021/v1",
            "http://host.docker.internal:4020/v1",
            "127.0.0.1:4020/v1",
            "${OPTILLM}/v1",
            "https://127.0.0.1:4020/v1",
            "http://[::1]:4020/v1",
            "http://127.0.0.2:4020/v1",
            "http://10.0.0.1:4020/v1",
            "http://vm.lan:4020/v1",
        ],
    )
    def test_an_address_at_which_nothing_listens(self, base: str) -> None:
        first, second = self.only(GOOD.replace("http://127.0.0.1:4020/v1", f"'{base}'"))
        assert first.found == (
            f"moa-jerry-xl leads to {base}, not to http://127.0.0.1:4020/v1 (/etc/litellm.yaml:2)"
        )
        assert second.found == "0 of 1 published names lead to http://127.0.0.1:4020/v1"
        assert {first.status, second.status} == {"fail"}

    @pytest.mark.parametrize(
        "base",
        ["http://localhost:4020/v1", "HTTP://127.0.0.1:4020/v1/", "http://0.0.0.0:4020/v1"],
    )
    def test_an_address_at_which_it_listens(self, base: str) -> None:
        assert self.only(GOOD.replace("http://127.0.0.1:4020/v1", f"'{base}'")) == []

    def test_no_entry_at_all(self) -> None:
        (fault,) = self.only("model_list: []\n")
        assert fault.status == "fail"
        assert "0 of 1 published names" in fault.found
        assert "render litellm" in fault.remedy

    def test_a_running_litellm_may_show_only_some_entries(self) -> None:
        judged = graph("model_list: []\n")
        assert list(judge.reached(judged, whole=False)) == []

    def test_an_address_that_is_not_known_is_a_skip(self) -> None:
        text = GOOD.replace("http://127.0.0.1:4020/v1", "os.environ/WHERE")
        assert [fault.status for fault in self.only(text)] == ["skip", "skip"]

    def test_a_name_that_begins_with_a_strategy_and_leads_elsewhere(self) -> None:
        more = "  - {model_name: moa-tom, litellm_params: {model: openai/tom, api_base: 'http://u:p@10.0.0.9/v1'}}\n"
        (fault,) = self.only(GOOD + more)
        assert fault.status == "warn"
        assert "moa-tom begins with a strategy" in fault.found
        assert "(/etc/litellm.yaml:12)" in fault.found
        assert "u:p" not in fault.found

    def test_another_deployment_on_this_machine_is_not_accused(self) -> None:
        more = "  - {model_name: moa-tom, litellm_params: {model: openai/moa-tom, api_base: 'http://127.0.0.1:4021/v1'}}\n"
        assert self.only(GOOD + more) == []

    def test_an_entry_without_a_provider_is_a_failure(self) -> None:
        faults = self.only(GOOD.replace("custom_openai/moa", "moa"))
        assert "moa-jerry-xl has no provider, and LiteLLM ignores it" in faults[0].found
        assert {fault.status for fault in faults} == {"fail"}

    def test_many_faults_of_one_kind_are_one(self) -> None:
        entry = (
            "  - {{model_name: moa-b{0}, litellm_params: {{model: openai/moa-b{0}, "
            "api_base: 'http://10.0.0.9/v1'}}}}\n"
        )
        bases = tuple(f"b{number}" for number in range(30))
        config = Config(model="b0", base_models=bases, strategies=("moa",))
        text = "model_list:\n" + "".join(entry.format(base[1:]) for base in bases)
        faults = list(judge.grouped(judge.reached(graph(text, ENVIRONMENT, config))))
        assert [fault.found for fault in faults] == [
            "30 entries (/etc/litellm.yaml, lines 2 to 31): they lead to http://10.0.0.9/v1, "
            "not to http://127.0.0.1:4020/v1",
            "0 of 30 published names lead to http://127.0.0.1:4020/v1",
        ]


class TestWhatCannotBeKnown:
    UNKNOWN = GOOD.replace("http://10.0.0.7/v1", "os.environ/WHERE")

    @pytest.mark.parametrize("environment", [None, {}, {"OTHER": "x"}])
    def test_a_variable_without_a_value_is_named(self, environment: dict[str, str] | None) -> None:
        judged = graph(self.UNKNOWN, environment)
        for one in (judge.loops, judge.unprefixed, judge.not_enabled, judge.unserved):
            (fault,) = one(judged)
            assert fault.status == "skip"
            assert "WHERE" in fault.found

    def test_with_a_value_it_is_known(self) -> None:
        assert every(graph(self.UNKNOWN, {**ENVIRONMENT, "WHERE": "http://10.0.0.7"})) == []
        assert [
            f.status for f in judge.loops(graph(self.UNKNOWN, {"WHERE": "http://[::1]:4020/v1"}))
        ] == ["fail"]

    def test_a_model_and_a_number_may_be_unknown_too(self) -> None:
        text = GOOD.replace("custom_openai/moa-jerry-xl", "os.environ/MODEL").replace(
            "num_retries: 0", "num_retries: os.environ/N"
        )
        assert ["MODEL" in f.found for f in judge.loops(graph(text))] == [True]
        assert [
            f.found
            for f in judge.repeats(
                graph(GOOD.replace("num_retries: 0", "num_retries: os.environ/N"))
            )
        ] == ["num_retries of moa-jerry-xl (/etc/litellm.yaml:2) depends on N"]

    def test_where_openai_lies_depends_on_a_variable_unless_an_environment_is_named(self) -> None:
        text = GOOD.replace(", api_base: http://10.0.0.7/v1", "")
        assert ["OPENAI_BASE_URL" in f.found for f in judge.loops(graph(text, None))] == [True]
        assert list(judge.loops(graph(text, {}))) == []
        (fault,) = judge.loops(graph(text, {"OPENAI_BASE_URL": "http://127.0.0.1:4020/v1"}))
        assert fault.status == "fail"

    def test_environment_variables_of_the_configuration_count(self) -> None:
        text = GOOD.replace(", api_base: http://10.0.0.7/v1", "") + (
            "environment_variables: {OPENAI_API_BASE: 'http://127.0.0.1:4020/v1'}\n"
        )
        assert [f.status for f in judge.loops(graph(text))] == ["fail"]

    @pytest.mark.parametrize(
        "more",
        [
            "router_settings: {routing_groups: [{group_name: g, models: [jerry-xl]}]}\n",
            "general_settings: {store_model_in_db: true}\n",
            "  - {model_name: auto, litellm_params: {model: auto_router/x}}\n",
        ],
    )
    def test_a_setting_that_the_graph_does_not_follow_is_named(self, more: str) -> None:
        (fault,) = judge.loops(graph(GOOD + more))
        assert fault.status == "skip"
        assert "/etc/litellm.yaml:" in fault.found

    def test_a_loop_that_is_seen_is_a_failure_all_the_same(self) -> None:
        text = self.UNKNOWN + "router_settings: {fallbacks: [{jerry-xl: [moa-jerry-xl]}]}\n"
        assert [f.status for f in judge.loops(graph(text))] == ["fail", "skip"]


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "127.0.1.1",
        "127.255.0.9",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "::1",
        "0.0.0.0",
        "::",
        "::ffff:127.0.0.1",
        "vm",
        "VM",
        "vm.lan",
        "10.0.0.1",
    ],
)
def test_this_host(host: str) -> None:
    assert is_local(host, frozenset({"vm", "vm.lan", "10.0.0.1"}))


@pytest.mark.parametrize(
    "host", ["10.0.0.2", "example.org", "localhost.example.org", "vm2", "1.127.0.0", "fe80::1", ""]
)
def test_another_host(host: str) -> None:
    assert not is_local(host, frozenset({"vm", "vm.lan", "10.0.0.1"}))


@pytest.mark.parametrize(
    "base",
    [
        "http://127.0.0.1:4020/v1",
        "HTTP://LocalHost:4020/v1/",
        "http://[::1]:4020",
        "http://vm:4020/v1",
        "http://0.0.0.0:4020",
    ],
)
def test_every_spelling_of_optillm(base: str) -> None:
    text = GOOD.replace("http://10.0.0.7/v1", f"'{base}'")
    assert {f.status for f in judge.unprefixed(graph(text))} == {"fail"}


@pytest.mark.parametrize(
    "base",
    [
        "http://127.0.0.1:4021/v1",
        "127.0.0.1:4020/v1",
        "http://10.0.0.7:4020/v1",
        "http://[",
        "http://a:b",
        "  ",
    ],
)
def test_no_spelling_of_optillm(base: str) -> None:
    assert list(judge.unprefixed(graph(GOOD.replace("http://10.0.0.7/v1", f"'{base}'"), {}))) == []
