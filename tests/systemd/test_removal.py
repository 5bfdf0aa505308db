"""The end of a deployment: after all other tests of it, none of which has to build it again."""

from __future__ import annotations

import pytest

from tests.support import PROXY_KEY
from tests.systemd.conftest import ETC, Host

pytestmark = [pytest.mark.slow, pytest.mark.root]


def test_uninstall_leaves_nothing(host: Host) -> None:
    host.optictl("uninstall", "--yes")
    for place in ("/opt/optillm-proxy", "/var/lib/optillm-proxy"):
        assert host.machine.run("test", "-e", place, check=False).returncode == 1
    assert host.machine.run("sh", "-c", "ls /etc/systemd/system /run/systemd/system | grep optillm", check=False).stdout == ""
    assert host.machine.show("optillm-proxy.service", "LoadState") == "not-found"
    assert host.machine.read(f"{ETC}/proxy_key").strip() == PROXY_KEY
    host.optictl("uninstall", "--purge", "--yes")
    assert host.machine.run("test", "-e", ETC, check=False).returncode == 1
    # the machine under the overlay may have units of its own that fail in here
    failed = host.machine.run("systemctl", "list-units", "--all", "--plain", "--no-legend", "optillm*").stdout
    assert failed == ""
