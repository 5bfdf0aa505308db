"""Entries of strategy models in the text of a LiteLLM configuration: nothing else changes."""

from __future__ import annotations

from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from optictl.deployment import paths, render
from optictl.deployment.config import Config
from optictl.errors import InvalidFile
from optictl.litellm import merge

CONFIG = Config(strategies=("moa", "bon"))
RENDERED = render.litellm(CONFIG, paths.system())
OURS = yaml.safe_load(RENDERED)["model_list"]
NAMES = ["moa-jerry-xl", "bon-jerry-xl"]

USERS = """\
# my models
model_list:  # all of them
- model_name: jerry-xl   # the real one
  litellm_params:
    model: hosted_vllm/jerry
    api_base: http://10.0.0.7/v1
    api_key: sk-secret-of-the-user
  # the last comment of the list

# how to route
router_settings:
  num_retries: 1
"""


def names(text: str) -> list[str]:
    return [entry["model_name"] for entry in yaml.safe_load(text)["model_list"]]


def without_ours(text: str) -> Any:
    data = yaml.safe_load(text)
    data["model_list"] = [e for e in data["model_list"] or [] if e not in OURS]
    return data


def test_the_entries_come_last_and_every_line_stays() -> None:
    done = merge.merged(USERS, RENDERED, "litellm.yaml")
    assert names(done.new) == ["jerry-xl", *NAMES]
    assert without_ours(done.new) == yaml.safe_load(USERS)
    left = iter(done.new.splitlines())
    assert all(line in left for line in USERS.splitlines())  # the lines are there, in their order
    assert done.kept == ()


def test_a_second_merge_changes_nothing() -> None:
    once = merge.merged(USERS, RENDERED, "litellm.yaml").new
    assert merge.merged(once, RENDERED, "litellm.yaml").new == once


def test_the_block_of_an_earlier_merge_is_replaced_in_its_place() -> None:
    text = merge.merged(USERS, RENDERED, "litellm.yaml").new
    text = text.replace(
        f"{merge.END}\n", f"{merge.END}\n- {{model_name: a, litellm_params: {{model: openai/a}}}}\n"
    )
    other = render.litellm(Config(strategies=("plansearch",)), paths.system())
    done = merge.merged(text, other, "litellm.yaml")
    assert names(done.new) == ["jerry-xl", "plansearch-jerry-xl", "a"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing yet\n",
        "model_list:\n",
        "model_list: []\n",
        "model_list: null  # later\nrouter_settings: {}\n",
        "model_list:   # none\nrouter_settings: {}\n",
        "router_settings: {}",
        "model_list:\n  - {model_name: a, litellm_params: {model: openai/a}}",
        "model_list:\n    -   model_name: a\n        litellm_params:\n          model: openai/a\n",
        "model_list:\n- model_name: a\n  litellm_params:\n    model: openai/a\n  note: |\n"
        "    two\n    lines\n\n\nrouter_settings: {}\n",
        "model_list:\n- model_name: a\n  litellm_params: {model: openai/a}\n  info: >-\n    one\n",
        "model_list:\n- model_name: a\n  litellm_params: {model: openai/a,\n    api_base: x}\n",
        "model_list:\n- model_name: a\n  litellm_params: &p\n    model: openai/a\n"
        "- model_name: b\n  litellm_params:\n    <<: *p\nx: 1\n",
        "model_list:\n- model_name: a\n  litellm_params:\n    model: openai/a\n  empty:\nx: 1\n",
        'model_list:\n- model_name: "a\n    b"\n  litellm_params:\n    model: "openai/a"\nx: 1\n',
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_any_form_of_a_list_gets_the_entries(text: str, newline: str) -> None:
    text = text.replace("\n", newline)
    done = merge.merged(text, RENDERED, "litellm.yaml")
    before = yaml.safe_load(text) or {}
    data = yaml.safe_load(done.new)
    assert data["model_list"] == [*(before.get("model_list") or []), *OURS]
    assert {k: v for k, v in data.items() if k != "model_list"} == {
        k: v for k, v in before.items() if k != "model_list"
    }
    kept = newline if newline in text else "\n"
    assert done.new.count("\n") == done.new.count(kept)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("model_list: [{model_name: a, litellm_params: {model: openai/a}}]\n", "in one line"),
        ("model_list: {}\nmodel_list: []\n", "model_list is twice"),
        ("a: &l\n- {model_name: a, litellm_params: {model: openai/a}}\nmodel_list: *l\n", "safely"),
        ("{router_settings: {}}\n", "safely"),
        (f"model_list:\n{merge.BEGIN}\n", "not one pair"),
        (f"{merge.END}\n{merge.BEGIN}\n", "not one pair"),
        ("a: [\n", "not valid YAML"),
        ("- a\n", "must be a mapping"),
        ("model_list: text\n", "in one line"),
    ],
)
def test_what_cannot_be_merged_safely_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidFile, match=why) as refused:
        merge.merged(text, RENDERED, "litellm.yaml")
    assert refused.value.remedy


def test_an_entry_of_the_user_with_the_same_name_stays_alone() -> None:
    text = USERS.replace("jerry-xl ", "moa-jerry-xl ")
    done = merge.merged(text, RENDERED, "litellm.yaml")
    assert names(done.new) == ["moa-jerry-xl", "bon-jerry-xl"]
    assert done.kept == (merge.Kept("moa-jerry-xl", "litellm.yaml:3"),)


def test_an_entry_of_an_included_file_counts_too() -> None:
    done = merge.merged(USERS, RENDERED, "litellm.yaml", {"bon-jerry-xl": "more.yaml:7"})
    assert names(done.new) == ["jerry-xl", "moa-jerry-xl"]
    assert done.kept == (merge.Kept("bon-jerry-xl", "more.yaml:7"),)


def test_a_diff_shows_no_secret() -> None:
    shown = merge.merged(USERS, RENDERED, "litellm.yaml").diff("litellm.yaml")
    assert "secret-of-the-user" not in shown
    assert "+    api_key: os.environ/LITELLM_OPTILLM_KEY" in shown
    assert shown.startswith("--- litellm.yaml\n+++ litellm.yaml\n")


@settings(max_examples=50)
@given(
    st.lists(
        st.fixed_dictionaries(
            {
                "model_name": st.text(min_size=1),
                "litellm_params": st.dictionaries(st.text(), st.text() | st.integers(), max_size=3),
            }
        ),
        min_size=1,
        max_size=3,
    ),
    st.dictionaries(st.text(min_size=1), st.lists(st.text()) | st.none(), max_size=3),
    st.integers(1, 6),
)
def test_whatever_yaml_writes_is_merged_or_refused(
    entries: list[Any], others: dict[str, Any], indent: int
) -> None:
    others.pop("model_list", None)
    text = yaml.safe_dump(
        {"model_list": entries, **others}, indent=indent, sort_keys=False, allow_unicode=True
    )
    data = yaml.safe_load(text)  # PyYAML does not read every text that it has written
    try:
        done = merge.merged(text, RENDERED, "litellm.yaml")
    except InvalidFile:
        assert set(text) & set("#\x85\u2028\u2029")
        return
    present = {entry["model_name"] for entry in data["model_list"]}
    expected = [entry for entry in OURS if entry["model_name"] not in present]
    assert yaml.safe_load(done.new) == {**data, "model_list": [*data["model_list"], *expected]}
