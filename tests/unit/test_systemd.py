"""What optictl knows about versions of systemd, without asking one."""

from __future__ import annotations

from pathlib import Path

import pytest

from optictl.deployment import paths, render
from optictl.deployment.config import Config
from optictl.deployment.render import Host
from optictl.host import systemd
from optictl.host.systemd import Unit


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("systemd 252 (252.39-1~deb12u2)\n+PAM +AUDIT", 252),
        ("systemd 257 (257.13-1~deb13u1)", 257),
        ("systemd 260~rc2 (260~rc2-1)", 260),
        ("systemd 262.1 (262.1-1)", 262),
        ("systemd v255-3-gabcdef", 255),
        ("systemd 249", 249),
        ("", 0),
        ("bash: systemctl: command not found", 0),
    ],
)
def test_the_version_is_read_in_every_spelling(text: str, version: int) -> None:
    assert systemd.parse_version(text) == version


def test_missing_protections_are_named_from_the_oldest() -> None:
    assert len(systemd.missing_protections(systemd.OLDEST_SUPPORTED)) == 2
    assert ["RestartSteps=" in what for what in systemd.missing_protections(249)] == [True]
    assert systemd.missing_protections(254) == []
    assert systemd.missing_protections(0) == []


@pytest.mark.parametrize("isolation", ["sealed", "loopback"])
@pytest.mark.parametrize("version", [247, 248, 249, 253, 254, 262])
def test_units_hold_what_the_version_knows_and_nothing_else(version: int, isolation: str) -> None:
    config = Config.model_validate({"isolation": isolation})
    host, places = Host(systemd=version), paths.system()
    service = render.unit(config, places, host)
    texts = [service, render.upstream_service(config, places, host)]
    texts.append(render.check_service(config, places, host))
    # 250 brought the specifier %d, 247 the variable
    assert "%d" not in service
    assert "--optillm-api-key @${CREDENTIALS_DIRECTORY}/proxy_key" in service
    assert all(("PrivateIPC=yes" in text) is (version >= 248) for text in texts)
    assert ("NoExecPaths=" in service) is (version >= 248)
    assert ("RestartSteps=" in service) is (version >= 254)


def test_the_relay_runs_the_program_that_this_machine_has() -> None:
    host = Host(socket_proxyd=Path("/usr/libexec/my systemd/systemd-socket-proxyd"))
    text = render.upstream_service(Config(), paths.system(), host)
    assert 'ExecStart="/usr/libexec/my systemd/systemd-socket-proxyd" --connections-max' in text


def test_a_unit_of_one_release_does_not_need_an_active_one() -> None:
    places = paths.system()
    release = places.releases / "0.3.12-abc"
    assert str(places.current) not in render.unit(Config(), places, Host(release=release))
    assert str(places.current) in render.unit(Config(), places)


@pytest.mark.parametrize("scope", ["system", "user"])
def test_a_trial_is_the_unit_started_once(scope: str) -> None:
    places = paths.system() if scope == "system" else paths.user({"HOME": "/home/jerry"})
    unit = render.unit(Config(), places)
    trial = render.trial_unit(unit, "optillm-proxy")
    changed = set(trial.splitlines()) - set(unit.splitlines())
    # a user's manager may give no other priority
    assert changed == ({"Restart=no", "Nice=-10"} if scope == "system" else {"Restart=no"})
    assert "[Install]" not in trial


SHOWN = """\
LoadState=loaded
ActiveState=active
SubState=running
Result=success
UnitFileState=enabled
FragmentPath=/etc/systemd/system/a.service
DropInPaths=/etc/systemd/system/a.service.d/1.conf /run/systemd/system/a.service.d/2.conf
NeedDaemonReload=yes
MainPID=42
ExecMainStatus=78
NRestarts=3
StatusText=listens, loads=1
ActiveEnterTimestamp=Sat 2026-11-28 10:00:00 UTC
StateChangeTimestamp=Sat 2026-11-28 10:00:01 UTC
MemoryCurrent=1024
MemoryMax=2048
"""


def test_every_property_that_is_asked_for_becomes_a_typed_field() -> None:
    asked = [line.partition("=")[0] for line in SHOWN.splitlines()]
    assert asked == list(systemd._PROPERTIES)
    assert systemd.parse_unit("a.service", SHOWN) == Unit(
        "a.service",
        load_state="loaded",
        active_state="active",
        sub_state="running",
        result="success",
        unit_file_state="enabled",
        fragment_path="/etc/systemd/system/a.service",
        drop_in_paths=(
            "/etc/systemd/system/a.service.d/1.conf",
            "/run/systemd/system/a.service.d/2.conf",
        ),
        need_daemon_reload=True,
        main_pid=42,
        exec_main_status=78,
        restarts=3,
        status_text="listens, loads=1",
        active_enter_timestamp="Sat 2026-11-28 10:00:00 UTC",
        state_change_timestamp="Sat 2026-11-28 10:00:01 UTC",
        memory_current=1024,
        memory_max=2048,
    )


def test_a_property_that_systemd_does_not_know_has_no_value() -> None:
    text = "MemoryCurrent=[not set]\nMemoryMax=infinity\nStatusText=\nNeedDaemonReload=no"
    assert systemd.parse_unit("a.socket", text) == Unit("a.socket")
    assert systemd.parse_unit("a.socket", "") == Unit("a.socket")


@pytest.mark.parametrize(
    ("state", "active"),
    [
        ("active", True),
        ("reloading", True),
        ("activating", True),
        ("deactivating", False),
        ("failed", False),
        ("inactive", False),
        ("", False),
    ],
)
def test_a_unit_that_starts_counts_as_active(state: str, active: bool) -> None:
    assert Unit("x.service", active_state=state).active is active
