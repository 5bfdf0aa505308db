"""The rules that must hold before a start, as pure functions, without a process."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from optictl.guard import invariants
from testing.support import PROXY_KEY, UPSTREAM_KEY, proxy_config

URL = "http://127.0.0.1:4000/v1"
GOOD = {
    "host": "127.0.0.1",
    "base_url": URL,
    "approach": "proxy",
    "proxy_key": PROXY_KEY,
    "environ": {"OPENAI_API_KEY": UPSTREAM_KEY, "HOME": "/nowhere", "PATH": "/bin"},
    "uid": 1000,
    "proxy_config": proxy_config(URL),
}


def refusals(**changes: object) -> list[str]:
    return invariants.refusals(**{**GOOD, **changes})  # type: ignore[arg-type]


def test_a_good_start_has_no_reason_against_it() -> None:
    assert refusals() == []
    assert refusals(approach="auto", proxy_config=None) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"uid": 0}, "runs as root"),
        ({"host": "0.0.0.0"}, "--host 0.0.0.0 is not 127.0.0.1"),
        ({"host": "localhost"}, "--host localhost is not 127.0.0.1"),
        ({"host": "::1"}, "--host ::1 is not 127.0.0.1"),
        ({"environ": {}}, "OPENAI_API_KEY is missing"),
        ({"environ": {"OPENAI_API_KEY": " \n"}}, "OPENAI_API_KEY is missing"),
        (
            {
                "proxy_key": UPSTREAM_KEY + PROXY_KEY,
                "environ": {"OPENAI_API_KEY": UPSTREAM_KEY + PROXY_KEY},
            },
            "the same as",
        ),
        ({"proxy_config": None}, "proxy_config.yaml is missing"),
    ],
)
def test_each_fault_is_one_reason(changes: dict[str, object], reason: str) -> None:
    found = refusals(**changes)
    assert len(found) == 1
    assert reason in found[0]


def test_every_reason_is_told_at_once() -> None:
    found = refusals(
        uid=0, host="0.0.0.0", environ={"OPTILLM_API_KEY": "x"}, proxy_key="", proxy_config=None
    )
    assert len(found) == 6
    assert "runs as root" in found


@pytest.mark.parametrize("name", sorted(invariants.FORBIDDEN))
def test_forbidden_variables_are_found_by_name(name: str) -> None:
    assert invariants.forbidden_variables([name, "HOME"]) == {name: invariants.FORBIDDEN[name]}


@pytest.mark.parametrize("name", ["http_proxy", "https_proxy", "all_proxy", "Http_Proxy"])
def test_proxy_variables_count_in_any_spelling(name: str) -> None:
    # httpx reads both spellings
    assert name in invariants.forbidden_variables([name])


@given(st.text(st.characters(min_codepoint=65, max_codepoint=90), max_size=20))
def test_every_variable_of_optillm_is_forbidden(rest: str) -> None:
    name = f"OPTILLM_{rest}"
    assert name in invariants.forbidden_variables([name])


@pytest.mark.parametrize(
    "name",
    [
        "OPENAI_API_KEY",
        "HOME",
        "PATH",
        "NO_PROXY",
        "no_proxy",
        "openai_base_url",
        "MY_OPTILLM_NOTE",
        "LANG",
    ],
)
def test_harmless_variables_pass(name: str) -> None:
    assert invariants.forbidden_variables([name]) == {}


@pytest.mark.parametrize(
    ("key", "why"),
    [
        ("", "empty"),
        ("sk-" + PROXY_KEY, "sk-"),
        (PROXY_KEY[:23], "shorter than 24"),
        ("ab" * 20, "fewer than 8"),
        (PROXY_KEY + " x", "white space"),
        (PROXY_KEY + "\n", "white space"),
        (PROXY_KEY + "\u00e9", "white space or characters"),
    ],
)
def test_weak_keys_are_named_and_never_quoted(key: str, why: str) -> None:
    weakness = invariants.key_weakness(key)
    assert weakness is not None
    assert why in weakness
    assert not key or key not in weakness


@given(st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=80))
def test_an_accepted_key_always_fits_in_a_header(key: str) -> None:
    if invariants.key_weakness(key) is None:
        assert len(key) >= invariants.MIN_KEY_LENGTH
        assert not key.startswith("sk-")
        assert f"Bearer {key}".encode("latin-1").split() == [b"Bearer", key.encode()]


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:4000/v1",
        "http://127.0.0.1:4000/v1/",
        "http://localhost/v1",
        "http://[::1]:4000/v1",
        "https://127.9.9.9/v1",
    ],
)
def test_upstreams_on_this_machine_pass(url: str) -> None:
    assert invariants.upstream_problem(url) is None


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("https://api.openai.com/v1", "does not point at this machine"),
        ("http://127.0.0.1.example.com/v1", "does not point at this machine"),
        ("http://0.0.0.0:4000/v1", "does not point at this machine"),
        ("http://10.0.0.1:4000/v1", "does not point at this machine"),
        ("http:///v1", "does not point at this machine"),
        ("http://127.0.0.1@example.com/v1", "does not point at this machine"),
        ("http://user:word@127.0.0.1:4000/v1", "user name or password"),
        ("http://127.0.0.1:4000", "must end in /v1"),
        ("http://127.0.0.1:4000/v1/v1", "must end in /v1"),
        ("http://127.0.0.1:4000/v1?to=x", "must end in /v1"),
        ("ftp://127.0.0.1/v1", "not an http URL"),
        ("127.0.0.1:4000/v1", "not an http URL"),
        ("http://127.0.0.1:notaport/v1", "is not a URL"),
        ("http://[::1/v1", "is not a URL"),
        ("", "not an http URL"),
    ],
)
def test_other_upstreams_do_not(url: str, problem: str) -> None:
    assert problem in (invariants.upstream_problem(url) or "")


@given(st.text(max_size=60))
def test_no_text_makes_the_upstream_check_fail(url: str) -> None:
    assert invariants.upstream_problem(url) is None or isinstance(
        invariants.upstream_problem(url), str
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (None, "is missing"),
        ("providers: [", "is not valid YAML"),
        ("a: b: c", "is not valid YAML at line 1"),
        ("\t- x", "is not valid YAML"),
        ("since: 2026-13-45", "is not valid YAML"),
        ("", "is not a mapping"),
        ("- one", "is not a mapping"),
        ("routing: {}", "has no provider"),
        ("providers: []", "has no provider"),
        ("providers: litellm", "has no provider"),
        ("providers: [litellm]", "provider 1 is not a mapping"),
        (proxy_config("https://api.openai.com/v1"), "is not the upstream"),
        (
            proxy_config(URL).replace("${OPENAI_API_KEY}", "dummy"),
            "does not take its key from ${OPENAI_API_KEY}",
        ),
        (
            proxy_config(URL).replace("    api_key: ${OPENAI_API_KEY}\n", ""),
            "does not take its key",
        ),
        (
            proxy_config(URL).replace("routing:", "    model_map: {jerry-xl: other}\nrouting:"),
            "renames models",
        ),
        (
            proxy_config(URL).replace(
                "routing:",
                f"  - {{name: b, base_url: {URL}, api_key: '${{OPENAI_API_KEY}}'}}\nrouting:",
            ),
            "has 2 providers",
        ),
    ],
)
def test_proxy_configurations_that_may_not_be_used(text: str | None, problem: str) -> None:
    found = invariants.proxy_config_problems(text, URL)
    assert any(problem in one for one in found), found


def test_a_literal_key_in_the_proxy_configuration_is_not_quoted() -> None:
    found = invariants.proxy_config_problems(
        proxy_config(URL).replace("${OPENAI_API_KEY}", "very-secret"), URL
    )
    assert found
    assert "very-secret" not in " ".join(found)


def test_a_trailing_slash_is_no_difference() -> None:
    assert invariants.proxy_config_problems(proxy_config(URL + "/"), URL) == []


_YAML = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["providers", "name", "base_url", "api_key", "model_map"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(_YAML)
def test_any_yaml_gets_a_verdict_and_never_an_exception(data: object) -> None:
    assert invariants.proxy_config_problems(yaml.safe_dump({"providers": data}), URL)
