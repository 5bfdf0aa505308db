"""What would make an installation fail, from facts alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from optictl.deployment import paths
from optictl.deployment.config import Config
from optictl.deployment.paths import Paths
from optictl.errors import OptictlError
from optictl.host import files, systemd
from optictl.host.uv import Interpreter
from optictl.operations import preflight
from optictl.operations.preflight import Facts, Holder, Secrets
from optictl.releases.interpreters import Choice
from optictl.results import Result

PLACES = paths.system()
KEY = "optillm-0123456789-abcdefghijkl"
PYTHON = Interpreter(Path("/usr/bin/python3.11"), (3, 11, 2), None)
GOOD = Facts(
    systemd=257,
    socket_proxyd=Path("/usr/lib/systemd/systemd-socket-proxyd"),
    choice=Choice(PYTHON, []),
    closed=None,
    mount="",
    mount_point=Path("/"),
    free=10**10,
    holders=(),
    secrets=Secrets({"OPENAI_API_KEY": "sk-upstream"}, KEY),
    manager_variables=("LANG", "PATH"),
    drop_ins={Path("/etc/systemd/system/optillm-proxy.service.d/memory.conf"): ()},
)


def judge(
    facts: Facts,
    config: Config | None = None,
    places: Paths = PLACES,
    *,
    starts: bool = True,
    secrets_come: bool = False,
) -> list[Result]:
    return preflight.judge(
        config or Config(), places, facts, starts=starts, secrets_come=secrets_come
    )


def test_a_healthy_machine_has_no_problem() -> None:
    assert judge(GOOD) == []


def secrets(**changed: Any) -> Facts:
    return replace(GOOD, secrets=replace(GOOD.secrets, **changed))


UPSTREAM = {"OPENAI_API_KEY": "sk-upstream"}
NO_PYTHON = Choice(None, [], "no Python that fits", "apt-get install python3")
#: name -> facts, the id, a part of what is told, a part of the remedy
CASES: dict[str, tuple[Facts, str, str, str]] = {
    "an old systemd": (
        replace(GOOD, systemd=246),
        "systemd",
        "systemd 246 cannot give",
        "optictl run --root DIR",
    ),
    "no relay": (
        replace(GOOD, socket_proxyd=None),
        "socket-proxyd",
        "no systemd-socket-proxyd",
        "isolation: loopback",
    ),
    "no interpreter": (
        replace(GOOD, choice=NO_PYTHON),
        "interpreter",
        "no Python that fits",
        "apt-get install python3",
    ),
    "a closed directory": (
        replace(GOOD, closed=Path("/srv/my place")),
        "directory",
        "cannot enter /srv/my place",
        "chmod o+x '/srv/my place'",
    ),
    "noexec": (
        replace(GOOD, mount="noexec", mount_point=Path("/opt")),
        "mount",
        "/opt is mounted noexec",
        "mount -o remount,exec /opt",
    ),
    "read-only": (
        replace(GOOD, mount="read-only", mount_point=Path("/opt")),
        "mount",
        "/opt is mounted read-only",
        "mount -o remount,rw /opt",
    ),
    "no room": (
        replace(GOOD, free=250 * 10**6),
        "room",
        "250 MB are free",
        "du -xh",
    ),
    "a unit on the port": (
        replace(GOOD, holders=[Holder(77, "other.service", "/usr/bin/x")]),
        "port",
        "other.service (process 77) listens on port 4020",
        "systemctl disable --now other.service",
    ),
    "a socket unit on the port": (
        replace(GOOD, holders=[Holder(1, "other.socket", "systemd")]),
        "port",
        "other.socket listens on port 4020",
        "systemctl disable --now other.socket",
    ),
    "a program on the port": (
        replace(GOOD, holders=[Holder(77, "", "/usr/bin/x")]),
        "port",
        "process 77 (/usr/bin/x) listens",
        "kill 77",
    ),
    "a program of another user on the port": (
        replace(GOOD, holders=[Holder(0, "", "")]),
        "port",
        "a program that cannot be seen from here",
        "ss -ltnp 'sport = :4020'",
    ),
    "no key for LiteLLM": (
        secrets(variables={}),
        "upstream-key",
        "OPENAI_API_KEY is not set in /etc/optillm-proxy/env",
        "write the line OPENAI_API_KEY=",
    ),
    "an empty key for LiteLLM": (
        secrets(variables={"OPENAI_API_KEY": "  "}),
        "upstream-key",
        "OPENAI_API_KEY is not set",
        "write the line OPENAI_API_KEY=",
    ),
    "a short proxy key": (
        secrets(proxy_key="short"),
        "proxy-key",
        "is shorter than",
        "rm /etc/optillm-proxy/proxy_key && optictl init",
    ),
    "an sk- proxy key": (
        secrets(proxy_key=f"sk-{KEY}"),
        "proxy-key",
        "begins with sk-",
        "LITELLM_OPTILLM_KEY",
    ),
    "a forbidden variable": (
        secrets(variables={**UPSTREAM, "OPTILLM_API_KEY": "x"}),
        "variable",
        "OPTILLM_API_KEY is set in /etc/optillm-proxy/env",
        "sed -i -E",
    ),
    "a variable of systemd's": (
        replace(GOOD, manager_variables=("https_proxy",)),
        "variable",
        "https_proxy is set in systemd's environment",
        "systemctl unset-environment https_proxy",
    ),
    "a line that systemd drops": (
        secrets(problems=["line 3: refused"], commands=["sed x", "sed y"]),
        "env",
        "/etc/optillm-proxy/env, line 3: refused",
        "sed x && sed y",
    ),
    "a drop-in": (
        replace(GOOD, drop_ins={Path("/etc/x.d/a.conf"): ("ExecStart", "User")}),
        "drop-in",
        "/etc/x.d/a.conf sets ExecStart=, User=",
        "mv /etc/x.d/a.conf /etc/x.d/a.conf.off",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_each_problem_is_told_alone_with_its_remedy(case: str) -> None:
    facts, id, words, remedy = CASES[case]
    (problem,) = judge(facts)
    assert (problem.id, problem.status) == (f"preflight.{id}", "fail")
    assert words in problem.found
    assert remedy in problem.remedy
    assert KEY not in repr(problem)


def test_all_of_them_are_told_at_once_and_notes_come_last() -> None:
    drop_ins = {Path("/etc/x.d/a.conf"): ("User",)}
    facts = replace(GOOD, systemd=247, closed=Path("/srv"), free=0, drop_ins=drop_ins)
    found = judge(facts)
    assert [problem.status for problem in found] == ["fail", "fail", "fail", "warn"]
    assert found[-1].id == "preflight.protections"
    assert "NoExecPaths= and PrivateIPC=" in found[-1].found


@pytest.mark.parametrize(
    ("version", "told"), [(0, []), (247, ["protections"]), (248, []), (252, [])]
)
def test_missing_protections_are_told_where_there_are_some(version: int, told: list[str]) -> None:
    assert [p.id.removeprefix("preflight.") for p in judge(replace(GOOD, systemd=version))] == told


def test_a_loopback_service_needs_no_relay() -> None:
    loopback = Config.model_validate({"isolation": "loopback"})
    assert judge(replace(GOOD, socket_proxyd=None), loopback) == []
    assert judge(replace(GOOD, socket_proxyd=None), places=paths.user({"HOME": "/home/j"})) == []


def test_without_a_start_the_secrets_may_still_come() -> None:
    (problem,) = judge(secrets(variables={}), starts=False)
    assert problem.status == "warn"
    assert judge(secrets(variables={}), secrets_come=True) == []


def test_secrets_that_may_not_be_read_are_a_note() -> None:
    (problem,) = judge(secrets(variables=None, proxy_key=None))
    assert (problem.status, problem.remedy) == ("warn", "run it with sudo")


def test_a_key_that_is_still_to_be_made_is_no_weak_one() -> None:
    assert judge(secrets(proxy_key="")) == []


def test_nothing_that_is_built_needs_no_room() -> None:
    assert judge(replace(GOOD, choice=None, free=0)) == []


def test_a_users_units_are_named_to_the_users_manager() -> None:
    places = paths.user({"HOME": "/home/jerry"})
    facts = replace(GOOD, holders=[Holder(7, "x.service", "x")])
    assert "systemctl --user disable --now x.service" in judge(facts, places=places)[0].remedy


@pytest.mark.parametrize(
    ("version", "runs", "refused"), [(245, True, True), (247, True, False), (245, False, False)]
)
def test_the_first_command_says_that_systemd_is_too_old(
    version: int, runs: bool, refused: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(systemd.Systemd, "version", lambda _: version)
    monkeypatch.setattr(systemd.Systemd, "available", lambda _: runs)
    if refused:
        with pytest.raises(OptictlError, match="systemd 245 cannot give") as told:
            preflight.refuse_old_systemd(PLACES)
        assert "optictl run --root DIR" in told.value.remedy
    else:
        preflight.refuse_old_systemd(PLACES)
    preflight.refuse_old_systemd(paths.system(tmp_path))  # no systemd runs it


class TestFacts:
    """What the machine tells."""

    def test_directives_that_make_another_service(self, tmp_path: Path) -> None:
        drop_in = tmp_path / "a.conf"
        drop_in.write_text(
            "[Service]\n# User=no\nUser = x\nMemoryMax=1G\nExecStart=\nExecStart=/bin/x\n"
        )
        assert preflight._directives(drop_in) == ["User", "ExecStart"]

    def test_the_nearest_directory_that_is_there(self, tmp_path: Path) -> None:
        assert preflight._existing(tmp_path / "a/b/c") == tmp_path

    def test_mounts(self) -> None:
        assert files.mount_point(Path("/proc/self")) == Path("/proc")
        assert files.forbids_programs(Path("/proc")) in ("noexec", "")

    def test_secrets_are_in_no_repr(self) -> None:
        assert KEY not in repr(GOOD)

    @pytest.mark.parametrize("port", [4020, 20])
    def test_socket_units_by_port(self, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
        lines = (
            "127.0.0.1:4020 a.socket a.service\n[::]:22 sshd.socket sshd.service\n"
            "/run/x x.socket -\n"
        )
        answer = type("Answer", (), {"stdout": lines})
        monkeypatch.setattr(systemd.Systemd, "_run", lambda *_: answer)
        found = systemd.Systemd("system").listening_sockets(port)
        assert found == (["a.socket"] if port == 4020 else [])
