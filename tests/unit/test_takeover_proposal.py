"""What init proposes for a hand-made service, and what it says of the rest."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optictl.deployment import config_sections, config_yaml, model_names, paths, render
from optictl.deployment.config import Config
from optictl.takeover import proposal, unitfile
from optictl.takeover.handmade import HandMade, Provider
from optictl.takeover.proposal import Proposal, propose
from optictl.takeover.taken import NotTaken

PLACES = paths.system()
KEY = "kept-by-hand-0123456789-abcdef"
URL = "http://127.0.0.1:4000/v1"
UNIT = "/etc/systemd/system/optillm-proxy.service"
#: A service of which everything can be kept.
GOOD = HandMade(
    unit="optillm-proxy.service",
    path=Path(UNIT),
    text="[Service]\n",
    runs_optillm=True,
    program=("/x/optillm",),
    user="optillm-proxy",
    host="127.0.0.1",
    port=5220,
    base_url=URL,
    approach="proxy",
    model="jerry-xl",
    proxy_key=KEY,
    environment={"OPENAI_API_KEY": "sk-upstream-1", "HOME": "/home/u"},
    where={
        **{
            name: f"--{name} in {UNIT}:9"
            for name in ("host", "port", "base_url", "approach", "model", "proxy_key")
        },
        "OPENAI_API_KEY": "/srv/optillm/env",
    },
    env_files=(Path("/srv/optillm/env"),),
    provider_config=Path("/home/u/.optillm/proxy_config.yaml"),
    providers=(Provider("litellm", URL),),
)


def values(found: Proposal) -> dict[str, Any]:
    return {s.key: s.value for s in found.settings}


def left(found: Proposal) -> dict[str, NotTaken]:
    return {n.what: n for n in found.not_taken}


def env(place: str = "/srv/optillm/env", **variables: str) -> HandMade:
    where = {**GOOD.where, **dict.fromkeys(variables, place)}
    return replace(GOOD, environment={**GOOD.environment, **variables}, where=where)


def unit(text: str, *drop_ins: tuple[str, str]) -> HandMade:
    return replace(
        GOOD,
        settings=unitfile.settings((UNIT, text), *drop_ins),
        drop_ins=tuple((Path(p), t) for p, t in drop_ins),
    )


def test_all_of_a_good_one_is_taken() -> None:
    found = propose(GOOD, PLACES)
    assert values(found) == {
        "listen.port": 5220,
        "upstream.base_url": URL,
        "model": "jerry-xl",
        "base_models": ["jerry-xl"],
        "approach": "proxy",
    }
    assert found.not_taken == ()
    assert (found.proxy_key, found.upstream_key, found.upstream_where) == (
        KEY,
        "sk-upstream-1",
        "/srv/optillm/env",
    )
    assert found.config == Config(listen=config_sections.Listen(port=5220))


@pytest.mark.parametrize(
    ("service", "key", "value"),
    [
        (replace(GOOD, base_url="http://127.0.0.1:4000"), "upstream.base_url", URL),
        (replace(GOOD, base_url=f"{URL}/"), "upstream.base_url", URL),
        (
            replace(GOOD, base_url="http://localhost:4000/v1"),
            "upstream.base_url",
            "http://localhost:4000/v1",
        ),
        (replace(GOOD, approach="auto"), "approach", "auto"),
        (replace(GOOD, approach="re2"), "strategies", [*Config().strategies, "re2"]),
        (replace(GOOD, approach="re2"), "approach", "auto"),
        (
            replace(
                GOOD, providers=(Provider("l", f"{URL}/", {"big": "jerry-xl", "small": "tom"}),)
            ),
            "base_models",
            ["jerry-xl", "tom"],
        ),
        # what another provider serves is nothing for LiteLLM
        (
            replace(GOOD, providers=(Provider("l", "http://127.0.0.1:1/v1", {"a": "far"}),)),
            "base_models",
            ["jerry-xl"],
        ),
    ],
)
def test_taken(service: HandMade, key: str, value: object) -> None:
    assert values(propose(service, PLACES))[key] == value


def test_what_litellm_publishes() -> None:
    listed = ["jerry-xl", "moa-jerry-xl", "leap-tom", "tom", "z3-tom", "bon-gone", "gpt-4o"]
    found = propose(GOOD, PLACES, listed)
    assert values(found)["base_models"] == ["jerry-xl", "tom"]
    assert values(found)["strategies"] == [*Config().strategies, "leap"]
    z3 = left(found)["strategy z3"]
    assert z3.why == "it runs Python code that the model wrote"
    assert "allow_code_execution: true" in z3.remedy


@pytest.mark.parametrize(
    ("service", "what", "why", "remedy"),
    [
        (replace(GOOD, host="0.0.0.0"), "--host 0.0.0.0", "127.0.0.1 only", "LiteLLM"),
        (
            replace(GOOD, base_url="", providers=()),
            "no --base-url",
            "api.openai.com",
            "upstream.base_url",
        ),
        (
            replace(GOOD, base_url="http://10.0.0.2:4000/v1", providers=()),
            "--base-url http://10.0.0.2:4000/v1",
            "does not point at this machine",
            "upstream.base_url",
        ),
        (
            replace(GOOD, base_url="http://127.0.0.1:5220/v1", providers=()),
            "upstream.base_url: http://127.0.0.1:5220/v1",
            "is the proxy itself",
            "yourself",
        ),
        (
            replace(GOOD, model="moa-jerry-xl"),
            "model moa-jerry-xl",
            "begins with 'moa'",
            "another name",
        ),
        (replace(GOOD, model="gpt-4o-mini", where={}), "no --model", "gpt-4o-mini", "base_models"),
        (replace(GOOD, approach="none"), "--approach none", "refuses", "LiteLLM itself"),
        (
            replace(GOOD, approach="bon"),
            "--approach bon",
            "the model name selects",
            "bon-jerry-xl",
        ),
        (
            replace(GOOD, proxy_key="dummy"),
            "the proxy key",
            "shorter than 24",
            "LiteLLM must send the new key",
        ),
        (
            replace(GOOD, proxy_key=f"sk-{KEY}"),
            "the proxy key",
            "begins with sk-",
            "/etc/optillm-proxy/proxy_key",
        ),
        (
            replace(GOOD, proxy_key=""),
            "the proxy key",
            "clients need no key now; init generates a new one",
            "render litellm",
        ),
        (env(OPTILLM_API_KEY="x"), "variable OPTILLM_API_KEY", "local inference", ""),
        (
            env("/etc/optillm-proxy/env", OPTILLM_API_KEY="x"),
            "variable OPTILLM_API_KEY",
            "the guard does not start",
            "sed -i -E '/^\\s*(export\\s+)?OPTILLM_API_KEY\\s*=/d' /etc/optillm-proxy/env",
        ),
        (env(CEREBRAS_API_KEY="x"), "variable CEREBRAS_API_KEY", "another provider", ""),
        (env(https_proxy="http://p:3128"), "variable https_proxy", "through a proxy", ""),
        (env(HF_TOKEN="x"), "variable HF_TOKEN", "only optictl's variables", ""),
        (replace(GOOD, passed=("A",)), "variable A", "PassEnvironment=", ""),
        (replace(GOOD, extra_flags=("--n",)), "--n", "OptiLLM's default", ""),
        (
            replace(GOOD, extra_flags=("--cepo_bestofn_n",)),
            "--cepo_bestofn_n",
            "OptiLLM's default",
            "",
        ),
        (
            replace(GOOD, extra_flags=("--log-conversations",)),
            "--log-conversations",
            "no prompt",
            "optictl trace",
        ),
        (replace(GOOD, extra_flags=("--launch-gui",)), "--launch-gui", "web page", ""),
        (replace(GOOD, extra_flags=("--future",)), "--future", "no such flag", ""),
        (
            replace(
                GOOD, providers=(*GOOD.providers, Provider("far", "https://u:p@api.openai.com/v1"))
            ),
            "provider far (https://(secret, not shown)@api.openai.com/v1)",
            "calls LiteLLM only",
            "model_list",
        ),
        (
            replace(GOOD, providers=(Provider("l", URL, {"big": "jerry-xl"}),)),
            "model_map big -> jerry-xl",
            "does not rename",
            "publish",
        ),
        (
            replace(GOOD, provider_config=None, providers=()),
            "no proxy_config.yaml",
            "packaged example",
            "",
        ),
        (replace(GOOD, user="u"), "User=u", "the user optillm-proxy", ""),
        (
            replace(GOOD, plugins=(Path("/w/optillm/plugins/a.py"),)),
            "plugins /w/optillm/plugins/a.py",
            "executes",
            "plugins:",
        ),
        (replace(GOOD, version="0.3.10"), "OptiLLM 0.3.10", "0.3.12", ""),
        (
            replace(GOOD, wrappers=("/srv/start.sh", "exec")),
            "start through /srv/start.sh",
            "guard itself",
            "more",
        ),
        (
            unit("[Service]\nExecStartPre=/bin/a\n"),
            "ExecStartPre=",
            "the guard only",
            "another unit",
        ),
        (
            unit("[Service]\nLimitNOFILE=9\nMemoryMax=1G\n"),
            "LimitNOFILE=9, MemoryMax=1G",
            "own limits",
            "local.conf",
        ),
        (
            unit("[Unit]\nAfter=network.target litellm.service\n"),
            "After=litellm.service",
            "dependencies",
            "local.conf",
        ),
        (
            unit("[Service]\n", ("/d/o.conf", "[Service]\nUser=x\nGroup=y\n")),
            "drop-in /d/o.conf (User=, Group=)",
            "the old unit",
            "install --force",
        ),
        (
            replace(GOOD, problems=("u:3: a line without NAME=",)),
            "a part of the unit",
            "u:3: a line without",
            "optictl.yaml",
        ),
        (
            replace(GOOD, environment={"OPENAI_API_KEY": "a b'c"}),
            "OPENAI_API_KEY",
            "quote",
            "/etc/optillm-proxy/env",
        ),
    ],
)
def test_not_taken(service: HandMade, what: str, why: str, remedy: str) -> None:
    found = propose(service, PLACES)
    assert set(left(found)) == {what}
    row = left(found)[what]
    assert why in row.why
    assert remedy in row.remedy
    assert bool(remedy) == bool(row.remedy)
    assert isinstance(found.config, Config)


def test_what_does_not_run_optillm_gives_nothing() -> None:
    found = propose(
        replace(GOOD, runs_optillm=False, problems=("ExecStart= starts no OptiLLM",)), PLACES
    )
    assert (found.settings, found.proxy_key, found.config) == ((), None, Config())
    assert len(found.not_taken) == 1


def test_variables_of_no_account_and_those_that_carry_a_flag() -> None:
    service = replace(
        env(PATH="/x", LC_ALL="C", K=KEY),
        text="[Service]\nExecStart=/x/optillm --optillm-api-key ${K}\n",
    )
    assert propose(service, PLACES).not_taken == ()


class TestKeys:
    def test_one_in_the_deployments_own_env_file_stays_there(self) -> None:
        found = propose(
            replace(GOOD, where={**GOOD.where, "OPENAI_API_KEY": str(PLACES.env)}), PLACES
        )
        assert found.upstream_key is None
        assert found.upstream_where == str(PLACES.env)

    def test_else_the_providers(self) -> None:
        service = replace(GOOD, environment={}, provider_keys=("a-key",))
        found = propose(service, PLACES)
        assert (found.upstream_key, found.upstream_where) == (
            "a-key",
            f"api_key in {GOOD.provider_config}",
        )

    def test_in_the_env_file(self) -> None:
        text = proposal.with_upstream_key(render.env(Config()), r"a\1b")
        assert text.endswith("OPENAI_API_KEY=a\\1b\n")
        assert proposal.with_upstream_key("OPENAI_API_KEY=\n", None) == "OPENAI_API_KEY=\n"

    def test_what_the_kept_files_have(self) -> None:
        found = propose(GOOD, PLACES)
        assert proposal.about_kept(found, PLACES, None, None) == []
        assert (
            proposal.about_kept(found, PLACES, "OPENAI_API_KEY=sk-upstream-1\n", KEY + "\n") == []
        )
        told = proposal.about_kept(found, PLACES, "OPENAI_API_KEY=\n", "another\n")
        assert [n.what for n in told] == ["OPENAI_API_KEY of /srv/optillm/env", "the proxy key"]
        assert "has no key" in told[0].why
        assert (
            "another key" in proposal.about_kept(found, PLACES, "OPENAI_API_KEY=b\n", None)[0].why
        )


def test_differences_from_a_kept_configuration() -> None:
    found = propose(GOOD, PLACES)
    assert found.differences(found.config) == []
    (difference,) = found.differences(Config())
    assert (difference[0].key, difference[0].value, difference[1]) == ("listen.port", 5220, 4020)


def test_over_another_configuration() -> None:
    mine = Config(workers=3, strategies=("bon",), listen=config_sections.Listen(port=9))
    mixed = propose(GOOD, PLACES).over(mine)
    assert (mixed.workers, mixed.strategies, mixed.listen.port) == (3, ("bon",), 5220)
    # the two do not fit together
    looped = propose(GOOD, PLACES).over(
        Config(publish={"jerry-xl-moa": "moa-jerry-xl"}, base_models=("jerry-xl", "x"))
    )
    assert looped.base_models == ("jerry-xl",)


def test_the_comment_is_a_comment() -> None:
    text = propose(GOOD, PLACES).comment(UNIT) + render.configuration(Config())
    assert config_yaml.parse(text, "f") == Config()
    assert "#   listen.port: 5220 (--port, line 9)" in text


WORDS = st.sampled_from(
    [
        "",
        "auto",
        "proxy",
        "none",
        "moa",
        "z3",
        "jerry-xl",
        "moa-x",
        "a b",
        "x&y",
        "é",
        "-",
        "localhost",
        URL,
        "http://[",
        "1",
    ]
)


@given(
    st.builds(
        replace,
        st.just(GOOD),
        host=WORDS,
        base_url=WORDS,
        approach=WORDS,
        model=WORDS,
        port=st.one_of(st.none(), st.integers(1, 65535)),
        providers=st.lists(st.builds(Provider, WORDS, WORDS, st.dictionaries(WORDS, WORDS))).map(
            tuple
        ),
        where=st.dictionaries(
            st.sampled_from(["port", "model", "base_url", "approach"]), st.just("here")
        ),
    ),
    st.lists(
        st.one_of(
            WORDS, st.builds("-".join, st.tuples(st.sampled_from(sorted(model_names.WORDS)), WORDS))
        )
    ),
)
def test_whatever_stands_there_the_proposal_can_be_used(
    service: HandMade, listed: list[str]
) -> None:
    found = propose(service, PLACES, listed)
    text = found.comment(UNIT) + render.configuration(found.config)
    assert config_yaml.parse(text, "f") == found.config
    assert all(n.what and n.why for n in found.not_taken)


def test_no_secret_is_told() -> None:
    secrets = (KEY, "sk-upstream-1", "pw-of-a-proxy", "provider-secret")
    service = replace(
        env(HTTPS_PROXY="http://me:pw-of-a-proxy@p", MY_TOKEN="provider-secret"),
        provider_keys=("provider-secret",),
        problems=(f"something with {KEY}",),
        base_url="http://me:pw-of-a-proxy@10.0.0.1/v1",
    )
    found = propose(service, PLACES)
    told = (
        repr(found)
        + repr(service)
        + "".join(n.what + n.why + n.remedy for n in found.not_taken)
        + found.comment(UNIT)
    )
    assert [s for s in secrets if s in told] == []
