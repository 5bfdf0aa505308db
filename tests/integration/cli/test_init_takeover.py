"""init next to a hand-made service: its values, what cannot be taken, and no word of a secret."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from optictl.deployment import config_yaml
from optictl.deployment.config import Config
from optictl.guard import invariants
from testing.support import open_directory
from tests.integration.cli.helpers import assert_envelope, optictl, tree, without_privileges

ETC = "etc/optillm-proxy"
UNIT = "etc/systemd/system/optillm-proxy.service"
KEY = "kept-by-hand-0123456789-abcdef"
UPSTREAM = "sk-litellm-secret-1"


def hand_made(
    root: Path, key: str = KEY, flags: str = "", env: str = "", name: str = "optillm-proxy"
) -> Path:
    """A unit below a root, and its env file elsewhere than in the deployment's directory."""
    env_file = root / "srv/optillm.env"
    env_file.parent.mkdir(parents=True, exist_ok=True)
    env_file.write_text(f"OPENAI_API_KEY={UPSTREAM}\n{env}")
    unit = (root / UNIT).with_name(f"{name}.service")
    unit.parent.mkdir(parents=True, exist_ok=True)
    unit.write_text(
        f"[Service]\nUser=nobody\nEnvironmentFile={env_file}\n"
        "ExecStart=/home/u/.venv/bin/optillm --host 127.0.0.1 --port 5220"
        f" --base-url http://127.0.0.1:1/v1 --approach proxy --model tom --optillm-api-key {key} "
        f"{flags}\n"
    )
    return unit


def test_the_files_have_its_values(tmp_path: Path) -> None:
    root = tmp_path / "root"
    unit = hand_made(root)
    before = unit.read_text()
    outcome = optictl("init", "--root", "root", home=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    made = config_yaml.parse((root / ETC / "optictl.yaml").read_text(), "f")
    assert (made.listen.port, made.upstream.base_url, made.model) == (
        5220,
        "http://127.0.0.1:1/v1",
        "tom",
    )
    assert (root / ETC / "proxy_key").read_text() == KEY + "\n"
    assert (root / ETC / "env").read_text().endswith(f"OPENAI_API_KEY={UPSTREAM}\n")
    assert stat.S_IMODE((root / ETC / "env").stat().st_mode) == 0o600
    assert unit.read_text() == before
    for words in (
        "was not written by optictl",
        "taken      listen.port: 5220 (--port, line 4)",
        "taken      proxy_key: --optillm-api-key, line 4",
        f"taken      OPENAI_API_KEY: {root}/srv/optillm.env",
        "not taken  User=nobody",
        f"optictl install --force --root {root} replaces the unit",
    ):
        assert words in outcome.out
    assert not [secret for secret in (KEY, UPSTREAM) if secret in outcome.out]


def test_what_it_cannot_take(tmp_path: Path) -> None:
    hand_made(tmp_path / "root", key="dummy", flags="--n 3", env="OPTILLM_API_KEY=hunter2\n")
    outcome = optictl("init", "--root", "root", home=tmp_path)
    assert outcome.code == 0
    key = (tmp_path / "root" / ETC / "proxy_key").read_text().strip()
    assert invariants.key_weakness(key) is None
    for words in (
        "not taken  the proxy key: it is shorter than 24",
        "not taken  --n:",
        "not taken  variable OPTILLM_API_KEY:",
    ):
        assert words in outcome.out
    assert "LiteLLM must send the new key" in outcome.out
    assert not [secret for secret in (key, "hunter2", UPSTREAM) if secret in outcome.out]


def test_dry_run_shows_the_same_and_writes_nothing(tmp_path: Path) -> None:
    hand_made(tmp_path / "root")
    before = tree(tmp_path)
    dry = optictl("init", "--root", "root", "--dry-run", home=tmp_path)
    assert (dry.code, dry.err) == (0, "")
    assert tree(tmp_path) == before
    wet = optictl("init", "--root", "root", home=tmp_path)
    assert dry.out.replace("would create", "created ") == wet.out


def test_dry_run_without_a_service(tmp_path: Path) -> None:
    outcome = optictl("init", "--root", "root", "--dry-run", home=tmp_path)
    assert outcome.code == 0
    assert outcome.out.count("would create") == 3
    assert not (tmp_path / "root").exists()


def test_json(tmp_path: Path) -> None:
    root = tmp_path / "root"
    hand_made(root, key="dummy")
    hand_made(root, name="second")
    results = assert_envelope(
        optictl("init", "--root", "root", "-o", "json", home=tmp_path).data, "init", "ok"
    )
    assert [r["target"] for r in results if r["action"] == "create"] == [
        str(root / ETC / name) for name in ("optictl.yaml", "env", "proxy_key")
    ]
    taken = {r["target"]: r["reason"] for r in results if r["action"] == "take"}
    assert taken["listen.port"] == f"5220 (--port in {root / UNIT}:4)"
    assert taken["OPENAI_API_KEY"] == f"{root}/srv/optillm.env"
    assert "proxy_key" not in taken
    left = {r["target"]: r for r in results if r["action"] == "leave"}
    assert "shorter than 24" in left["the proxy key"]["reason"]
    assert left["the proxy key"]["remedy"]
    assert [(r["target"], r["remedy"]) for r in results if r["action"] == "other"] == [
        (
            str(root / UNIT).replace("optillm-proxy", "second"),
            "To take that one over: optictl init --name second",
        )
    ]
    assert UPSTREAM not in str(results)


def test_a_kept_configuration_that_differs(tmp_path: Path) -> None:
    root = tmp_path / "root"
    optictl("init", "--root", "root", home=tmp_path)
    (root / ETC / "proxy_key").write_text(KEY + "\n")
    hand_made(root)
    outcome = optictl("init", "--root", "root", home=tmp_path)
    assert outcome.code == 0
    assert outcome.out.count("kept ") == 3
    assert (
        "differs    listen.port: 5220 in the unit (--port, line 4), 4020 in optictl.yaml"
        in outcome.out
    )
    assert (
        "differs    model: tom in the unit (--model, line 4), jerry-xl in optictl.yaml"
        in outcome.out
    )
    assert (
        f"not taken  OPENAI_API_KEY of {root}/srv/optillm.env: "
        f"{root / ETC}/env exists and has no key" in outcome.out
    )
    assert "taken      listen.port" not in outcome.out
    assert UPSTREAM not in outcome.out


@pytest.mark.parametrize(
    "text",
    [
        "[Service]\nExecStart=/x/optillm --model 'a\n",
        "nonsense\n",
        "[Service]\nExecStart=/bin/nginx\n",
    ],
)
def test_a_unit_that_cannot_be_understood_is_no_error(tmp_path: Path, text: str) -> None:
    unit = tmp_path / "root" / UNIT
    unit.parent.mkdir(parents=True)
    unit.write_text(text)
    outcome = optictl("init", "--root", "root", home=tmp_path)
    assert (outcome.code, outcome.err) == (0, "")
    assert "not taken " in outcome.out
    assert (
        config_yaml.parse((tmp_path / "root" / ETC / "optictl.yaml").read_text(), "f") == Config()
    )


def test_services_of_other_names(tmp_path: Path) -> None:
    hand_made(tmp_path / "root", name="optillm")
    hand_made(tmp_path / "root", name="Opti_LLM")
    outcome = optictl("init", "--root", "root", home=tmp_path)
    assert (
        "optillm.service runs OptiLLM and is not optictl's. To take that one over: "
        "optictl init --name optillm" in outcome.out
    )
    assert (
        "Opti_LLM.service runs OptiLLM and is not optictl's. optictl cannot take it over"
        in outcome.out
    )
    # this deployment's files are as ever
    assert (
        config_yaml.parse((tmp_path / "root" / ETC / "optictl.yaml").read_text(), "f") == Config()
    )


def test_a_user_who_may_not_read_its_env_file() -> None:
    with open_directory() as directory:
        root = directory / "root"
        hand_made(root)
        (root / "srv/optillm.env").chmod(0)
        outcome = optictl("init", "--root", root, home=directory, preexec_fn=without_privileges)
        assert (outcome.code, outcome.out) == (1, "")
        assert f"no permission for {root}/srv/optillm.env" in outcome.err
        assert "sudo" in outcome.err
        assert not (root / ETC).exists()
