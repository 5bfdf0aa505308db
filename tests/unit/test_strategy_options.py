"""The options of strategies: what a deployment sets, and what a request may choose."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.deployment import config, config_yaml, render
from optictl.deployment.config import Config
from optictl.errors import ConfigError
from optictl.guard import request_schema, settings, strategy_options
from optictl.guard.responses import Refused
from optictl.guard.strategy_options import OPTIONS, Bounds, Chosen


def chosen(strategy: str, asked: Any = None, **allowed: Bounds) -> Chosen:
    found = strategy_options.chosen(strategy, asked, {strategy: allowed})
    assert isinstance(found, Chosen), found
    return found


def problems(text: str) -> list[tuple[str, int | None, str]]:
    with pytest.raises(ConfigError) as wrong:
        config_yaml.parse(text, "optictl.yaml")
    return [(p.path, p.line, p.message) for p in wrong.value.problems]


class TestDeployment:
    def test_a_number_is_the_default_of_requests(self) -> None:
        given_ones = {"bon": {"samples": 5}, "self_consistency": {"similarity": 0.9}}
        flag = strategy_options.flag(given_ones)
        assert flag == "bon.samples=5:2:16,self_consistency.similarity=0.9:0.0:1.0"
        assert strategy_options.deployment(flag) == {
            "bon": {"samples": Bounds(5, 2, 16)},
            "self_consistency": {"similarity": Bounds(0.9, 0.0, 1.0)},
        }

    def test_nothing_is_none(self) -> None:
        assert strategy_options.flag({}) == "none"
        assert strategy_options.deployment("none") == {}

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ({"default": 5, "max": 8}, Bounds(5, 2, 8)),
            ({"max": 2}, Bounds(2, 2, 2)),
            ({"min": 4}, Bounds(4, 4, 16)),
            ({}, Bounds(3, 2, 16)),
        ],
    )
    def test_bounds(self, value: dict[str, int], expected: Bounds) -> None:
        assert strategy_options.bounds(OPTIONS["bon"]["samples"], value) == expected

    @pytest.mark.parametrize(
        "text", ["", "bon", "bon.samples", "bon.x=1:1:1", "bon.samples=5", "bon.samples=a:b:c"]
    )
    def test_another_flag_is_refused(self, text: str) -> None:
        with pytest.raises(ValueError, match=r"not an option|no numbers"):
            strategy_options.deployment(text)

    def test_the_file_names_each_problem_with_its_place(self) -> None:
        text = (
            "strategy_options:\n"
            "  bon:\n"
            "    sample: 5\n"
            "    samples: 99\n"
            "    temperature: {default: 1, mx: 2}\n"
            "  self_consistency: {samples: 2.5, similarity: {min: 0.9, default: 0.5}}\n"
            "  mcst: {depth: 2}\n"
            "  pvg: 3\n"
        )
        assert problems(text) == [
            (
                "strategy_options.bon.sample",
                3,
                "bon has no option 'sample'; did you mean 'samples'?",
            ),
            ("strategy_options.bon.samples", 4, "must be a whole number from 2 to 16"),
            (
                "strategy_options.bon.temperature",
                5,
                "has no 'mx': give a number, or default, min and max",
            ),
            (
                "strategy_options.self_consistency.samples",
                6,
                "must be a whole number from 2 to 16",
            ),
            (
                "strategy_options.self_consistency.similarity",
                6,
                "must have min <= default <= max, not 0.9, 0.5 and 1",
            ),
            (
                "strategy_options.mcst",
                7,
                "no strategy 'mcst' has options; did you mean 'mcts'?",
            ),
            ("strategy_options.pvg", 8, "must be a mapping of options to values"),
        ]

    def test_the_file_that_is_written_is_read_again(self) -> None:
        options = {"bon": {"samples": {"default": 5, "max": 8}}, "pvg": {"rounds": 1}}
        written = render.configuration(Config(strategy_options=options))
        assert config_yaml.parse(written, "optictl.yaml").strategy_options == options

    def test_the_schema_knows_every_option(self) -> None:
        schema = config.schema()["properties"]["strategy_options"]
        assert {name: set(part["properties"]) for name, part in schema["properties"].items()} == {
            name: set(options) for name, options in OPTIONS.items()
        }

    def test_the_guard_reads_the_flag(self) -> None:
        assert "--strategy-options" in settings.flags()


class TestRequest:
    def test_without_a_choice_it_has_the_defaults(self) -> None:
        assert chosen("bon").values == {"samples": 3, "temperature": 1.0}
        assert chosen("bon", samples=Bounds(5, 2, 8)).values["samples"] == 5
        assert chosen("re2").values == {}

    def test_it_chooses_within_the_bounds(self) -> None:
        assert chosen("bon", {"samples": 8}, samples=Bounds(5, 2, 8)).values["samples"] == 8
        assert strategy_options.chosen(
            "bon", {"samples": 9}, {"bon": {"samples": Bounds(5, 2, 8)}}
        ) == ("samples", "must be a whole number from 2 to 8")

    @pytest.mark.parametrize(
        ("strategy", "asked", "param", "what"),
        [
            ("bon", {"sample": 5}, "strategy_options.sample", "did you mean 'samples'?"),
            ("bon", {"samples": 1}, "strategy_options.samples", "from 2 to 16"),
            ("bon", {"samples": True}, "strategy_options.samples", "a whole number"),
            ("bon", {"temperature": "hot"}, "strategy_options.temperature", "a number"),
            ("bon", {"x" * 9999: 5}, "strategy_options." + "x" * 40, "it has: samples"),
            ("re2", {"samples": 5}, "strategy_options.samples", "re2 has no options"),
            ("mine", {"samples": 5}, "strategy_options.samples", "mine has no options"),
            ("bon", [5], "strategy_options", "must be an object"),
        ],
    )
    def test_a_wrong_choice_is_refused(
        self, strategy: str, asked: Any, param: str, what: str
    ) -> None:
        message = {"role": "user", "content": "q"}
        body = request_schema.parse(
            {"model": "x-m", "messages": [message], "strategy_options": asked}
        )
        with pytest.raises(Refused, match=what.replace("?", r"\?")) as refused:
            request_schema.for_strategy(body, strategy, {})
        assert (refused.value.status, refused.value.param) == (400, param)
        assert len(refused.value.message) < 300

    def test_optillm_gets_it_where_it_reads_it(self) -> None:
        assert chosen("bon", {"samples": 4}).server() == {"best_of_n": 4}
        assert chosen("mcts", {"depth": 2}).server() == {
            "mcts_simulations": 2,
            "mcts_depth": 2,
            "mcts_exploration": 0.2,
        }
        assert chosen("majority_voting", {"samples": 4}).configuration({}) == {"k": 4}
        assert chosen("bon", {"samples": 4}).configuration({}) == {}

    def test_the_clients_parameter_counts_before_the_deployments_option(self) -> None:
        deployed = Bounds(0.2, 0.0, 2.0)
        sent = {"temperature": 0.9}
        assert chosen("genselect", temperature=deployed).configuration({}) == {"temperature": 0.2}
        assert chosen("genselect", temperature=deployed).configuration(sent) == sent
        asked = {"temperature": 0.5}
        assert chosen("genselect", asked, temperature=deployed).configuration(sent) == asked

    def test_a_temperature_for_the_candidates(self) -> None:
        assert chosen("moa").candidate_temperature is None
        assert chosen("moa", {"temperature": 0.3}).candidate_temperature == 0.3
        assert chosen("genselect", {"temperature": 0.3}).candidate_temperature is None


_NUMBERS = st.integers() | st.floats() | st.none() | st.booleans() | st.text(max_size=3)
_VALUES = _NUMBERS | st.dictionaries(st.sampled_from(["default", "min", "max", "x"]), _NUMBERS)


@given(
    st.dictionaries(
        st.sampled_from([*OPTIONS, "x"]),
        st.dictionaries(st.sampled_from(["samples", "depth", "temperature", "x"]), _VALUES)
        | _NUMBERS,
        max_size=3,
    )
)
def test_what_is_right_reaches_the_guard(given_ones: dict[str, Any]) -> None:
    if strategy_options.deployment_problems(given_ones):
        return
    deployed = strategy_options.deployment(strategy_options.flag(given_ones))
    for strategy, options in deployed.items():
        for name, bounds in options.items():
            widest = OPTIONS[strategy][name]
            assert widest.least <= bounds.least <= bounds.default <= bounds.most <= widest.most
            assert chosen(strategy, {name: bounds.most}, **options).values[name] == bounds.most
