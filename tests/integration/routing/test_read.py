"""Reading: LiteLLM's own errors are reported with their place and never end in a traceback."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from optictl.deployment.config import Config
from optictl.litellm import judge, read
from optictl.litellm.graph import Graph


def problems(text: str | None, **files: str) -> list[str]:
    texts = {"c.yaml": text, **{f"{name}.yaml": one for name, one in files.items()}}
    with pytest.raises(read.Unusable) as caught:
        read.load("c.yaml", texts.get, {})
    return caught.value.problems


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "c.yaml does not exist"),
        ("", "c.yaml: must be a mapping of keys to values"),
        ("- a\n", "c.yaml: must be a mapping of keys to values"),
        ("a: b: c\n", "c.yaml:1: not valid YAML: mapping values are not allowed here"),
        ("a:\n  - [\n", "c.yaml:3: not valid YAML"),
        ("a: 2024-13-45\n", "c.yaml: not valid YAML"),
        ("? {a: b}\n: c\n", "not valid YAML"),
        ("a: !!python/name:os.system x\n", "not valid YAML"),
        ("[" * 5000, "not valid YAML"),
        ("model_list: {a: b}\n", "c.yaml:1: model_list must be a list"),
        ("model_list:\n  - moa\n", "c.yaml:2: an entry of model_list has no model_name"),
        (
            "model_list:\n  - {model_name: moa}\n",
            "c.yaml:2: moa has no litellm_params with a model",
        ),
        (
            "model_list:\n  - {model_name: moa, litellm_params: {model: 3}}\n",
            "c.yaml:2: moa has no litellm_params with a model",
        ),
        ("\nrouter_settings: [a]\n", "c.yaml:2: router_settings must be a mapping"),
        ("router_settings:\n  fallbacks: a\n", "c.yaml:2: fallbacks must be a list"),
        (
            "router_settings:\n  fallbacks:\n    - a\n",
            "c.yaml:3: an entry of fallbacks must be a mapping with one key",
        ),
        (
            "router_settings:\n  fallbacks:\n    - {a: [b], c: [d]}\n",
            "c.yaml:3: an entry of fallbacks must be a mapping with one",
        ),
        (
            "router_settings:\n  fallbacks:\n    - a: b\n",
            "c.yaml:3: the fallbacks of a must be a list of model names",
        ),
        (
            "router_settings:\n  fallbacks:\n    - a: [1]\n",
            "c.yaml:3: the fallbacks of a must be a list of model names",
        ),
        (
            "litellm_settings:\n  default_fallbacks: a\n",
            "c.yaml:2: the default fallbacks of * must be a list of model names",
        ),
        (
            "router_settings:\n  max_fallbacks: many\n",
            "c.yaml:2: max_fallbacks must be a whole number",
        ),
        (
            "router_settings:\n  model_group_alias: [a]\n",
            "c.yaml:2: model_group_alias must be a mapping",
        ),
        ("include: more.yaml\n", "c.yaml:1: include must be a list of file paths"),
        ("include: [1]\n", "c.yaml:1: include must be a list of file paths"),
        (
            "a: b\ninclude:\n  - more.yaml\n",
            "c.yaml:3: includes more.yaml, but more.yaml does not exist",
        ),
    ],
)
def test_a_configuration_that_litellm_would_not_start_with(text: str | None, problem: str) -> None:
    found = problems(text)
    assert len(found) == 1
    assert problem in found[0]


def test_every_problem_is_told() -> None:
    assert len(problems("model_list:\n  - a\n  - b\nrouter_settings: {fallbacks: [c]}\n")) == 3


def test_a_problem_of_an_included_file_names_that_file() -> None:
    assert problems("include: [more.yaml]\n", more="a: [\n")[0].startswith("more.yaml:")
    assert problems("include: [more.yaml]\n", more="model_list:\n- x\n") == [
        "more.yaml:2: an entry of model_list has no model_name"
    ]


def _load(text: str, **files: str) -> read.Settings:
    texts = {
        "d/c.yaml": text,
        **{name.replace("__", "/") + ".yaml": one for name, one in files.items()},
    }
    return read.load("d/c.yaml", texts.get, {})


ENTRY = "model_list: [{model_name: NAME, litellm_params: {model: openai/x}}]\n"


class TestIncludes:
    def test_lists_grow_and_everything_else_is_replaced(self) -> None:
        found = _load(
            "include: [a.yaml]\nlitellm_settings: {num_retries: 1, x: 1}\n"
            + ENTRY.replace("NAME", "one"),
            d__a="litellm_settings: {num_retries: 2}\n" + ENTRY.replace("NAME", "two"),
        )
        assert [d.name for d in found.entries] == ["one", "two"]
        assert [d.place.file for d in found.entries] == ["d/c.yaml", "d/a.yaml"]
        assert found.library == {"num_retries": 2}

    def test_a_nested_one_lies_beside_the_file_that_names_it(self) -> None:
        found = _load("include: [e/a.yaml]\n", d__e__a="include: [b.yaml]\n", d__e__b=ENTRY)
        assert [d.place.file for d in found.entries] == ["d/e/b.yaml"]

    def test_or_beside_the_first_one(self) -> None:
        found = _load("include: [e/a.yaml]\n", d__e__a="include: [b.yaml]\n", d__b=ENTRY)
        assert [d.place.file for d in found.entries] == ["d/b.yaml"]

    def test_a_circle_is_read_once(self) -> None:
        found = _load("include: [a.yaml]\n", d__a="include: [c.yaml, a.yaml]\n" + ENTRY)
        assert len(found.entries) == 1


def test_a_merge_key_and_an_anchor_keep_their_lines() -> None:
    found = _load(
        "x: &x\n  api_base: http://h\nmodel_list:\n  - model_name: a\n"
        "    litellm_params: {<<: *x, model: openai/a}\n"
    )
    assert found.entries[0].parameters == {"api_base": "http://h", "model": "openai/a"}
    assert found.entries[0].place.line == 4


_scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.sampled_from(["*", "moa-jerry-xl", "jerry-xl", "openai/x", "os.environ/A", ""])
)
_values = st.recursive(
    _scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_scalars, inner, max_size=3),
    max_leaves=8,
)
_PARAMETERS = (
    *("api_base", "api_key", "fallbacks", "silent_model", "num_retries", "timeout"),
    *("custom_llm_provider", "mock_response", "litellm_credential_name"),
)
_keys = {
    "model_list": st.lists(
        st.fixed_dictionaries(
            {},
            optional={
                "model_name": _scalars,
                "litellm_params": _values
                | st.fixed_dictionaries(
                    {"model": _scalars},
                    optional=dict.fromkeys(_PARAMETERS, _values),
                ),
                "model_info": _values,
            },
        )
        | _values,
        max_size=3,
    ),
    "router_settings": st.dictionaries(
        st.sampled_from(
            [
                "fallbacks",
                "model_group_alias",
                "num_retries",
                "retry_policy",
                "max_fallbacks",
                "timeout",
            ]
        ),
        _values,
    )
    | _values,
    "litellm_settings": st.dictionaries(
        st.sampled_from(
            ["fallbacks", "model_alias_map", "default_fallbacks", "api_base", "custom_provider_map"]
        ),
        _values,
    ),
    "general_settings": _values,
    "credential_list": _values,
    "environment_variables": _values,
    "include": _values,
}


@settings(max_examples=400)
@given(st.fixed_dictionaries({}, optional=_keys))
def test_no_configuration_ends_in_a_traceback(data: dict[str, object]) -> None:
    """Every key, with values of every type: problems with places, or a graph to judge."""
    import yaml

    try:
        found = read.load("c.yaml", {"c.yaml": yaml.safe_dump(data)}.get, {})
    except read.Unusable:
        return  # told, with its place: see above
    graph = Graph(found, Config())
    for one in (judge.loops, judge.unprefixed, judge.not_enabled, judge.unserved, judge.repeats):
        list(one(graph))
    list(judge.keys(graph, "x"))
