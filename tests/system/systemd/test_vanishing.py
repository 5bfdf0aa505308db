"""The end of a deployment: after all other tests of it, none of which has to build it again."""

from __future__ import annotations

import pytest

from testing.host import ETC, Host
from testing.support import PROXY_KEY

METRICS = "/var/lib/metrics"

pytestmark = [pytest.mark.slow, pytest.mark.root]


def test_uninstall_leaves_nothing(host: Host) -> None:
    host.machine.run("mkdir", "-p", METRICS)
    host.configure(f"monitoring: {{timer: true, textfile: {METRICS}/optillm.prom}}\n")
    host.optictl("install", "--yes", "--no-smoke")
    # a round of the timer, as it will be a minute later
    host.machine.run("systemctl", "start", "optillm-proxy-check.service")
    assert host.machine.run("ls", METRICS).stdout.split() == ["optillm.prom"]
    host.optictl("uninstall", "--yes")
    assert host.machine.run("ls", METRICS).stdout == ""
    for place in ("/opt/optillm-proxy", "/var/lib/optillm-proxy", "/run/optillm-proxy-check"):
        assert host.machine.run("test", "-e", place, check=False).returncode == 1
    assert (
        host.machine.run(
            "sh", "-c", "ls /etc/systemd/system /run/systemd/system | grep optillm", check=False
        ).stdout
        == ""
    )
    assert host.machine.show("optillm-proxy.service", "LoadState") == "not-found"
    assert host.machine.read(f"{ETC}/proxy_key").strip() == PROXY_KEY
    host.optictl("uninstall", "--purge", "--yes")
    assert host.machine.run("test", "-e", ETC, check=False).returncode == 1
    # the machine under the overlay may have units of its own that fail in here
    failed = host.machine.run(
        "systemctl", "list-units", "--all", "--plain", "--no-legend", "optillm*"
    ).stdout
    assert failed == ""
