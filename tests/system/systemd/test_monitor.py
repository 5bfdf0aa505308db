"""The timer checks from inside its sandbox; a lasting fault marks it failed, a fix clears that."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from testing.host import ETC, Host
from testing.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.root]

TIMER, UNIT = "optillm-proxy-check.timer", "optillm-proxy-check.service"
UNITS = "/etc/systemd/system"
METRICS = "/var/lib/metrics/optillm.prom"
MONITORING = f"monitoring: {{timer: true, fail_after: 2, well_after: 2, textfile: {METRICS}}}\n"
#: What the timer leaves out.
UNTIMED = {"release.starts", "credential.mode"}
#: Rounds one after the other instead of every minute.
FAST = f"/run/systemd/system/{TIMER}.d/fast.conf"


@pytest.fixture(scope="module", autouse=True)
def timed(host: Host) -> Iterator[None]:
    """A running deployment whose timer fires every second; the last test switches it off."""
    host.renew()
    host.configure(MONITORING)
    host.machine.run("mkdir", "-p", FAST.rpartition("/")[0], METRICS.rpartition("/")[0])
    host.machine.write(
        FAST, "[Timer]\nOnActiveSec=\nOnActiveSec=1\nOnUnitActiveSec=1\nRandomizedDelaySec=0\n"
    )
    host.optictl("install", "--yes", "--no-smoke")
    yield
    host.machine.run("rm", "-rf", FAST.rpartition("/")[0], METRICS.rpartition("/")[0])
    host.configure()


def _statuses(text: str) -> dict[str, str]:
    families = {m.name: m.samples for m in text_string_to_metric_families(text)}
    return {s.labels["id"]: s.labels["status"] for s in families["optillm_check_status"] if s.value}


def _journal(host: Host) -> str:
    return host.machine.run("journalctl", "-q", "-o", "cat", "-u", UNIT).stdout


def _rested(host: Host) -> str:
    """The state after the last round. Rounds follow without a gap here: the timer stops first."""
    host.machine.run("systemctl", "stop", TIMER)
    wait_until(lambda: host.machine.show(UNIT, "ActiveState") != "activating", 90, pause=0.3)
    return host.machine.show(UNIT, "ActiveState")


def _timer(host: Host) -> dict[str, str]:
    out = host.optictl("check", "--only", "timer", "--output", "json", check=False).stdout
    return next(r for r in json.loads(out)["results"] if r["id"] == "timer.active")


def test_it_is_installed_and_sees_all_from_behind_its_walls(host: Host) -> None:
    assert host.machine.run("systemctl", "is-enabled", TIMER).stdout.strip() == "enabled"
    assert host.machine.run("systemctl", "is-active", TIMER).stdout.strip() == "active"
    units = [f"{UNITS}/{TIMER}", f"{UNITS}/{UNIT}"]
    verified = host.machine.run("systemd-analyze", "verify", *units, check=False)
    assert verified.stdout + verified.stderr == ""
    wait_until(
        lambda: host.machine.run("test", "-e", METRICS, check=False).returncode == 0, 90, pause=0.3
    )
    timed = _statuses(host.machine.read(METRICS))
    asked = len(host.upstream.calls())
    by_hand = _statuses(host.optictl("check", "--output", "prometheus").stdout)
    assert timed == {id: status for id, status in by_hand.items() if id not in UNTIMED}
    assert "fail" not in timed.values()
    assert (
        len(host.upstream.calls()) == asked
    )  # the timer's rounds went on meanwhile: none of them asks a model
    # while all is well, its journal is silent
    assert (
        host.machine.run("journalctl", "-q", "-o", "cat", "-u", UNIT, "-p", "notice").stdout == ""
    )
    assert "No changes." in host.optictl("install", "--yes").stdout


def test_a_fault_that_lasts_marks_it_failed_and_mending_clears_it(host: Host) -> None:
    host.machine.run("chmod", "0644", f"{ETC}/proxy_key")
    wait_until(lambda: "status=1/FAILURE" in _journal(host), 90, pause=0.3)
    assert _rested(host) == "failed"
    assert UNIT in host.machine.run("systemctl", "--failed", "--plain", "--no-legend").stdout
    said = _journal(host)
    assert said.index("passed, 1 of 2 consecutive failures") < said.index("status=1/FAILURE")
    assert f"chmod 600 {ETC}/proxy_key" in said
    assert _statuses(host.machine.read(METRICS))["files.ownership"] == "fail"
    host.machine.run("chmod", "0600", f"{ETC}/proxy_key")
    host.machine.run("systemctl", "start", TIMER)
    wait_until(lambda: "passed" in _journal(host).splitlines(), 90, pause=0.3)
    assert _rested(host) == "inactive"
    assert UNIT not in host.machine.run("systemctl", "--failed", "--plain", "--no-legend").stdout
    assert _statuses(host.machine.read(METRICS))["files.ownership"] == "pass"
    assert "failed, 1 of 2 consecutive passes" in _journal(host)
    host.machine.run("systemctl", "start", TIMER)


def test_check_says_when_it_does_not_run(host: Host) -> None:
    assert _timer(host)["status"] == "pass"
    host.machine.run("systemctl", "disable", "--now", TIMER)
    told = _timer(host)
    assert (told["status"], told["root_cause"]) == ("fail", "timer.active")
    assert "disabled" in told["found"]
    assert "inactive" in told["found"]
    host.mend(told["remedy"])
    assert _timer(host)["status"] == "pass"


def test_switched_off_it_is_gone_with_its_metrics(host: Host) -> None:
    host.configure()
    assert "monitoring.timer is off" in _timer(host)["found"]
    host.optictl("install", "--yes", "--no-smoke")
    assert _timer(host)["found"] == "monitoring.timer is off, and there is no timer"
    for path in (
        f"{UNITS}/{TIMER}",
        f"{UNITS}/{UNIT}",
        f"{UNITS}/timers.target.wants/{TIMER}",
        METRICS,
        "/run/optillm-proxy-check",
    ):
        assert host.machine.run("test", "-e", path, check=False).returncode == 1, path
    assert (
        host.machine.run(
            "systemctl", "list-units", "--all", "--plain", "--no-legend", "optillm-proxy-check*"
        ).stdout
        == ""
    )
