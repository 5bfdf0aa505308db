"""The hosts themselves: reached by the real Ansible over ssh, bare, and without a way out."""

from __future__ import annotations

import pytest

from testing.hosts import Fleet

pytestmark = [pytest.mark.slow, pytest.mark.root]


def test_ansible_reaches_them(fleet: Fleet) -> None:
    answer = fleet.ansible("setup", "gather_subset=!all,!min,service_mgr")
    assert answer.returncode == 0, answer.stdout + answer.stderr
    assert [f"gate{number} | SUCCESS" in answer.stdout for number in (1, 2, 3)] == [True] * 3
    assert answer.stdout.count('"ansible_service_mgr": "systemd"') == 3


def test_they_are_bare_and_have_no_way_out(fleet: Fleet) -> None:
    for host in fleet.hosts:
        for missing in ("pip", "uv", "optictl"):
            assert (
                host.machine.run("sh", "-c", f"command -v {missing}", check=False).returncode != 0
            )
        assert (
            "No module named pip"
            in host.machine.run("/usr/bin/python3", "-m", "pip", check=False).stderr
        )
        assert host.machine.run("ls", "-A", "/opt", "/usr/local").stdout.split() == [
            "/opt:",
            "/usr/local:",
        ]
        routes = host.machine.run("ip", "-o", "route").stdout.splitlines()
        assert [line.split()[0].rsplit(".", 1)[0] for line in routes] == [
            host.address.rsplit(".", 1)[0]
        ]
        words = (
            "/usr/bin/python3",
            "-c",
            "import socket; socket.create_connection(('192.0.2.1', 443), 3)",
        )
        assert "unreachable" in host.machine.run(*words, check=False).stderr
