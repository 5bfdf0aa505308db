"""A real OptiLLM in a hand-made service: init proposes its values, check judges it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from optictl.proof.standin import StandIn
from testing.handmade import HAND_KEY, HOME, USER, HandMadeService, start_handmade
from testing.machine import Machine, booted
from testing.support import UPSTREAM_KEY, proxy_config, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.root]

UNIT = "/etc/systemd/system/optillm-proxy.service"
TAKE_OVER = "optictl init, then optictl install --force"
NOT_OURS = "optictl did not install the service: see unit.managed"


@pytest.fixture(scope="module")
def own_machine(program: Path, locked_venv: Path) -> Iterator[Machine]:
    with booted() as machine:
        yield machine


@pytest.fixture(scope="module")
def upstream() -> Iterator[StandIn]:
    with StandIn(key=UPSTREAM_KEY).running() as upstream:
        yield upstream


@contextmanager
def handmade(
    machine: Machine, upstream: StandIn, venv: Path, **options: Any
) -> Iterator[HandMadeService]:
    """One that is gone afterwards, with all that optictl made beside it."""
    service = start_handmade(machine, upstream, venv, **options)
    try:
        yield service
    finally:
        service.remove()
        machine.run("rm", "-rf", "/etc/optillm-proxy", "/etc/other")


def look(machine: Machine, program: Path, *arguments: str) -> tuple[dict[str, dict[str, str]], str]:
    """What check says, by id, and all of its words."""
    ended = machine.run(program, "check", *arguments, "--output", "json", check=False)
    assert ended.stderr == ""
    # a remedy has the whole path of the program, which no test of words has to know
    said = ended.stdout.replace(str(program), "optictl")
    return {r["id"]: r for r in json.loads(said)["results"]}, said


def roots(found: dict[str, dict[str, str]]) -> set[str]:
    return {
        r["id"]
        for r in found.values()
        if r["status"] in ("fail", "error") and r["root_cause"] == r["id"]
    }


def as_user(machine: Machine, *command: str | Path) -> subprocess.CompletedProcess[str]:
    return machine.run("setpriv", "--reuid", USER, "--clear-groups", *command, check=False)


def test_the_one_of_the_specification(
    own_machine: Machine, upstream: StandIn, locked_venv: Path, program: Path
) -> None:
    with handmade(own_machine, upstream, locked_venv, env_path="/etc/other/env") as service:
        assert service.ask("none-jerry-xl").status_code == 200
        found, told = look(own_machine, program)
        assert HAND_KEY not in told
        assert UPSTREAM_KEY not in told
        assert {id for id, r in found.items() if r["status"] in ("fail", "error")} == {
            "unit.managed",
            "key.not-in-argv",
            "process.guarded",
            "proxy-config.litellm-only",
            "workdir.empty",
        }
        # each danger is seen for itself; that there is no guard is what being hand-made means
        assert roots(found) == {"unit.managed", "key.not-in-argv", "proxy-config.litellm-only"}
        assert found["process.guarded"]["root_cause"] == "unit.managed"
        for id in ("unit.managed", "key.not-in-argv", "process.guarded"):
            assert found[id]["remedy"] == TAKE_OVER
        assert f"{UNIT} was not written by optictl" in found["unit.managed"]["found"]
        assert {
            id for id, r in found.items() if r["status"] == "skip" and r["found"] == NOT_OURS
        } == {
            "release.in-force",
            "release.pinned",
            "release.verified",
            "release.interpreter",
            "release.bytecode",
            "release.starts",
            "unit.matches",
            "unit.no-weakening-dropin",
            "socket.owner",
            "service.current-release",
            "service.exposure",
            "credential.mode",
            "relay.active",
            "timer.active",
        }
        passed = {id for id, r in found.items() if r["status"] == "pass"}
        assert passed >= {
            "env.forbidden",
            "env.upstream-key",
            "key.strength",
            "bind.loopback",
            "process.non-root",
            "process.descriptors",
            "health.alive",
            "health.locked",
            "health.connected",
            "upstream.base-model",
            "files.ownership",
            "unit.installed",
            "unit.enabled",
            "unit.reloaded",
            "service.active",
            "service.restarts",
            "host.disk",
            "host.clock",
            "host.journal",
        }
        assert (found["config.valid"]["status"], found["config.valid"]["remedy"]) == (
            "warn",
            "optictl init",
        )
        text = own_machine.run(program, "check", check=False).stdout
        assert "The service was not installed by optictl" in text
        assert "(also failed: proxy-config.litellm-only, key.not-in-argv)" in " ".join(text.split())


def test_init_proposes_its_values_and_touches_nothing_of_it(
    own_machine: Machine, upstream: StandIn, locked_venv: Path, program: Path
) -> None:
    providers = proxy_config(upstream.base_url)
    with handmade(
        own_machine,
        upstream,
        locked_venv,
        env_path="/etc/other/env",
        flags="--n 2",
        providers=providers,
    ) as service:
        own_machine.run("chown", "root:", f"{HOME}/optillm-proxy")
        before = (
            service.text,
            own_machine.show(service.unit, "MainPID"),
            own_machine.show(service.unit, "UnitFileState"),
        )
        dry = own_machine.run(program, "init", "--dry-run").stdout
        assert own_machine.run("test", "-e", "/etc/optillm-proxy", check=False).returncode
        wet = own_machine.run(program, "init").stdout
        assert dry.replace("would create", "created ") == wet
        assert f"taken      listen.port: {service.port} (--port, line 10)" in wet
        assert "taken      proxy_key: --optillm-api-key, line 10" in wet
        assert "taken      OPENAI_API_KEY: /etc/other/env" in wet
        assert f"not taken  User={USER}" in wet
        assert "not taken  --n: " in wet
        assert not [secret for secret in (HAND_KEY, UPSTREAM_KEY) if secret in wet]
        assert own_machine.read("/etc/optillm-proxy/proxy_key").strip() == HAND_KEY
        assert f"OPENAI_API_KEY={UPSTREAM_KEY}" in own_machine.read("/etc/optillm-proxy/env")
        modes = own_machine.run(
            "stat", "-c", "%a %U", "/etc/optillm-proxy/env", "/etc/optillm-proxy/proxy_key"
        ).stdout
        assert modes == "600 root\n600 root\n"
        assert before == (
            service.text,
            own_machine.show(service.unit, "MainPID"),
            own_machine.show(service.unit, "UnitFileState"),
        )
        assert service.healthy()
        found, _ = look(own_machine, program)
        assert (found["config.valid"]["status"], found["unit.managed"]["status"]) == (
            "pass",
            "fail",
        )
        assert found["health.connected"]["status"] == "pass"
        # a good provider file and a closed working directory are no faults of it
        for id in ("proxy-config.litellm-only", "proxy-config.in-force", "workdir.empty"):
            assert found[id]["status"] == "pass", id


def test_a_dangerous_one(
    own_machine: Machine, upstream: StandIn, locked_venv: Path, program: Path
) -> None:
    drop_in = f"""\
        [Service]
        User=root
        Environment=HOME={HOME} OPTILLM_LOG=info
        """
    options = {"key": "hunter2", "flags": "--host 0.0.0.0", "drop_in": drop_in, "env_mode": 0o644}
    with handmade(own_machine, upstream, locked_venv, **options) as service:
        own_machine.run("systemctl", "disable", "--quiet", service.unit)
        found, told = look(own_machine, program)
        assert "hunter2" not in told
        assert roots(found) >= {
            "unit.managed",
            "bind.loopback",
            "process.non-root",
            "key.not-in-argv",
            "key.strength",
            "env.forbidden",
            "files.ownership",
            "unit.enabled",
            "proxy-config.litellm-only",
        }
        assert "0.0.0.0" in found["bind.loopback"]["found"]
        assert "OPTILLM_LOG is set in Environment= in" in found["env.forbidden"]["found"]
        assert "/etc/optillm-proxy/env is 0644" in found["files.ownership"]["found"]
        assert found["unit.enabled"]["remedy"] == f"systemctl enable {service.unit}"
        wet = own_machine.run(program, "init").stdout
        for words in (
            "not taken  --host 0.0.0.0",
            "not taken  the proxy key: it is shorter than 24 characters; init generates a new one",
            "not taken  variable OPTILLM_LOG",
            f"not taken  drop-in {UNIT}.d/override.conf (User=, Environment=)",
        ):
            assert words in wet
        assert "hunter2" not in wet


def test_one_without_a_key_and_one_that_is_down(
    own_machine: Machine, upstream: StandIn, locked_venv: Path, program: Path
) -> None:
    with handmade(own_machine, upstream, locked_venv, key="") as service:
        found, _ = look(own_machine, program)
        assert {"health.locked", "key.strength", "unit.managed"} <= roots(found)
        assert found["key.not-in-argv"]["status"] == "pass"
        own_machine.run("systemctl", "stop", service.unit)
        found, _ = look(own_machine, program)
        assert {"service.active", "unit.managed"} <= roots(found)
        assert found["service.active"]["remedy"] == f"systemctl start {service.unit}"


def test_for_an_ordinary_user(
    own_machine: Machine, upstream: StandIn, locked_venv: Path, program: Path
) -> None:
    with handmade(own_machine, upstream, locked_venv):
        refused = as_user(own_machine, program, "init")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "no permission for /etc/optillm-proxy/env" in refused.stderr
        assert "sudo" in refused.stderr
        ended = as_user(own_machine, program, "check", "--output", "json")
        found = {r["id"]: r for r in json.loads(ended.stdout)["results"]}
        assert found["unit.managed"]["status"] == "fail"
        assert found["env.forbidden"]["status"] == "skip"
        assert not [r for r in found.values() if r["status"] == "error"]


def test_no_service_is_none_that_is_not_optictls(own_machine: Machine, program: Path) -> None:
    found, _ = look(own_machine, program, "--only", "unit.managed")
    assert found["unit.managed"]["status"] == "skip"


def test_it_is_found_where_systemd_has_it(
    own_machine: Machine, upstream: StandIn, locked_venv: Path, program: Path
) -> None:
    """In another directory of units, and under another name."""
    with handmade(own_machine, upstream, locked_venv) as service:
        own_machine.run(
            "sh",
            "-c",
            f"mv {UNIT} /usr/local/lib/systemd/system/ 2>/dev/null || "
            f"(mkdir -p /usr/local/lib/systemd/system && mv {UNIT} /usr/local/lib/systemd/system/)",
        )
        own_machine.run("systemctl", "daemon-reload")
        wait_until(service.healthy, 30)
        found, _ = look(own_machine, program, "--only", "unit.managed")
        assert (
            "/usr/local/lib/systemd/system/optillm-proxy.service was not"
            in found["unit.managed"]["found"]
        )
        own_machine.run(
            "sh", "-c", f"mv /usr/local/lib/systemd/system/optillm-proxy.service {UNIT}"
        )
    with handmade(own_machine, upstream, locked_venv, name="optillm"):
        told = own_machine.run(program, "init", "--dry-run").stdout.replace(str(program), "optictl")
        assert (
            "optillm.service runs OptiLLM and is not optictl's. To take that one over: "
            "optictl init --name optillm" in told
        )
        found, _ = look(own_machine, program, "--name", "optillm", "--only", "unit.managed")
        assert (
            found["unit.managed"]["remedy"]
            == "optictl init --name optillm, then optictl install --force --name optillm"
        )
