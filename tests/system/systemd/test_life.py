"""The life of a deployment under a real systemd, through optictl alone."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from optictl.proof.standin import Seen
from testing.host import ETC, OPT, Host
from testing.support import PROXY_KEY, UPSTREAM_KEY, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.root]

#: The service, and its sibling.
UNITS = ("optillm-proxy.service", "optillm-proxy-next.service")


@pytest.fixture(scope="module", autouse=True)
def installed(host: Host) -> None:
    """A running deployment, whatever the module before left."""
    host.renew()


def _results(host: Host, *arguments: str) -> dict[str, dict[str, object]]:
    out = host.optictl(*arguments, "--output", "json", check=False).stdout
    return {r["id"]: r for r in json.loads(out)["results"]}


def test_installed_it_runs_hardened_and_proven(host: Host) -> None:
    results = _results(host, "check", "--attack")
    # no LiteLLM configuration is named here, and the stand-in has no version: nothing to judge
    of_litellm = {id for id in results if id.startswith(("routing.", "litellm."))}
    assert {results[id]["status"] for id in of_litellm} == {"skip"}
    # the request of `install` alone is too little for a verdict about effect
    few = results.pop("strategies.effect")
    assert (few["status"], "1 request so far" in str(few["found"])) == ("skip", True)
    assert {
        id: r["found"]
        for id, r in results.items()
        if r["status"] != "pass" and id not in of_litellm
    } == {}
    attacks = [id for id in results if id.startswith("sandbox.")]
    assert len(attacks) > 20
    assert (
        host.machine.run(
            "systemctl", "is-enabled", "optillm-proxy.service", "optillm-proxy.socket"
        ).stdout.split()
        == ["enabled"] * 2
    )
    smoked = _results(host, "smoke", "--all")
    assert {r["status"] for r in smoked.values()} == {"pass"}
    assert len(smoked) == 4


def test_a_second_installation_changes_nothing(host: Host) -> None:
    pid = host.machine.show("optillm-proxy", "MainPID")
    assert "No changes." in host.optictl("install", "--yes").stdout
    assert host.machine.show("optillm-proxy", "MainPID") == pid


def test_systemd_has_nothing_to_say_about_the_units(host: Host) -> None:
    units = [
        f"/etc/systemd/system/optillm-proxy{name}"
        for name in (".service", ".socket", "-upstream.service", "-upstream.socket")
    ]
    verified = host.machine.run("systemd-analyze", "verify", *units, check=False)
    assert verified.stdout + verified.stderr == ""


def test_the_service_hides_its_secrets(host: Host) -> None:
    pid = host.machine.show("optillm-proxy", "MainPID")
    seen = [
        host.machine.run("systemctl", "show", "optillm-proxy").stdout,
        host.machine.run("cat", f"/proc/{pid}/cmdline", f"/proc/{pid}/environ").stdout,
        host.machine.run("journalctl", "-u", "optillm-proxy", "--no-pager").stdout,
        host.machine.run("sh", "-c", "cat /etc/systemd/system/optillm-proxy*").stdout,
        host.optictl("status").stdout,
        host.optictl("logs").stdout,
    ]
    for text in seen:
        assert PROXY_KEY not in text
        assert UPSTREAM_KEY not in text


def test_status_is_one_screen(host: Host) -> None:
    text = host.optictl("status").stdout
    assert "active (running)" in text
    assert "serving, 0 in flight" in text
    assert "alive pass" in text
    assert len(text.splitlines()) < 24
    data = json.loads(host.optictl("status", "--output", "json").stdout)["results"][0]["data"]
    assert data["memory"] > 50 * 2**20
    assert data["tiers"] == {
        "health.alive": "pass",
        "health.locked": "pass",
        "health.connected": "pass",
    }


def test_top_knows_what_systemd_knows(host: Host) -> None:
    (line,) = host.optictl("top", "--count", "1").stdout.splitlines()
    facts = dict(word.split("=") for word in line.split()[1:])
    assert (facts["state"], facts["ready"], facts["in_flight"]) == ("active(running)", "yes", "0")
    assert facts["restarts"] == host.machine.show("optillm-proxy", "NRestarts")
    assert float(facts["memory_mib"]) > 50
    assert float(facts["uptime_s"]) > 0


def test_the_guard_names_its_release(host: Host) -> None:
    # in an empty root its directory has another name
    told = httpx.get(
        f"{host.url}/guard/state", headers={"Authorization": f"Bearer {PROXY_KEY}"}
    ).json()
    assert (
        f"releases/{told['release']}"
        == host.machine.run("readlink", f"{OPT}/current").stdout.strip()
    )


def test_logs_are_the_journal_without_prompts(host: Host) -> None:
    host.ask()
    host.ask("nosuch-jerry-xl")
    lines = [
        json.loads(line) for line in host.optictl("logs", "--output", "json").stdout.splitlines()
    ]
    assert any(line["event"].get("strategy") == "bon" for line in lines)
    assert "hello" not in host.optictl("logs").stdout
    errors = host.optictl("logs", "--errors", "--since", "1 minute ago").stdout
    assert "strategy_not_enabled" in errors
    assert "bon-jerry-xl" not in errors
    (newest,) = host.optictl(
        "logs", "--strategy", "bon", "--status", "2xx", "--lines", "1"
    ).stdout.splitlines()
    assert newest.split()[2:4] == ["200", "bon-jerry-xl"]
    trace = next(
        e.get("trace") or e["id"]
        for e in (line["event"] for line in lines)
        if e.get("strategy") == "bon"
    )
    found = host.optictl("logs", "--trace", trace[:12], "-o", "json").stdout.splitlines()
    assert [trace in line for line in found] == [True]
    nothing = host.optictl("logs", "--trace", "nosuch")
    assert (nothing.stdout, nothing.stderr) == ("", "no journal entry matches\n")
    refused = host.optictl("logs", "--since", "soon", check=False)
    assert refused.returncode == 1
    assert "soon" in refused.stderr
    # what comes is shown as it comes, and what was there before it only once
    follow = ["timeout", "15", host.program, "logs", "-f", "--status", "400", "--lines", "1"]
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(host.machine.run, *follow, check=False)
        time.sleep(5)
        host.ask("nosuch-jerry-xl")
        assert following.result().stdout.count("strategy_not_enabled") == 2


def test_the_sibling_of_a_restart_is_seen(host: Host) -> None:
    """While the service drains, its sibling serves: status, top and logs show both."""
    arrived, go_on = threading.Event(), threading.Event()

    def hold(seen: Seen) -> None:
        if seen.method == "POST":
            arrived.set()
            go_on.wait(60)

    def both() -> bool:
        service, sibling = (host.machine.show(unit, "ActiveState") for unit in UNITS)
        # the service tells systemd every few seconds what it does
        doing = host.machine.show(UNITS[0], "StatusText")
        return (service, sibling) == ("deactivating", "active") and "1 in flight" in doing

    host.upstream.respond = hold
    with ThreadPoolExecutor(2) as pool:
        try:
            asked = pool.submit(host.ask)
            assert arrived.wait(20)
            restarting = pool.submit(host.optictl, "restart")
            wait_until(both, 60, "the service to drain beside its sibling", pause=0.1)
            (told,) = json.loads(host.optictl("status", "-o", "json").stdout)["results"]
            line = host.optictl("top", "--count", "1").stdout
        finally:
            host.upstream.respond = None
            go_on.set()
        assert asked.result().status_code == 200
        assert restarting.result().returncode == 0
    units = {unit["name"]: unit for unit in told["data"]["units"]}
    assert units[UNITS[0]]["state"].startswith("deactivating")
    assert "1 in flight" in units[UNITS[0]]["doing"]
    assert units[UNITS[1]]["state"] == "active (running)"
    assert f"{UNITS[1]}:active(running)" in line
    entries = map(json.loads, host.optictl("logs", "-o", "json").stdout.splitlines())
    assert UNITS[1] in {entry["unit"] for entry in entries}
    assert "[next] " in host.optictl("logs").stdout


def test_the_other_isolation(host: Host) -> None:
    """loopback: one service and one socket, fewer walls, the same proof."""
    host.configure("isolation: loopback\n")
    try:
        host.optictl("install", "--yes")
        results = _results(host, "check", "--attack")
        assert {
            id: r["found"] for id, r in results.items() if r["status"] not in ("pass", "skip")
        } == {}
        assert results["relay.active"]["status"] == "skip"
        exposure = float(str(results["service.exposure"]["found"]).split()[1])
        assert 0.2 < exposure <= 1.0
        assert host.ask().status_code == 200
    finally:
        host.configure()
        host.optictl("install", "--yes")
    assert (
        str(
            _results(host, "check", "--only", "service.exposure")["service.exposure"]["found"]
        ).split()[1]
        <= "0.2"
    )


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("proxy_key", "sk-0123456789abcdefghijklmnop\n", "begins with sk-"),
        ("env", "OPENAI_API_KEY=\n", "OPENAI_API_KEY is missing"),
        ("env", f"OPENAI_API_KEY={UPSTREAM_KEY}\nOPTILLM_API_KEY=x\n", "OPTILLM_API_KEY is set"),
    ],
)
def test_a_refused_configuration_is_told_and_recovered_from(
    host: Host, name: str, text: str, words: str
) -> None:
    host.machine.write(f"{ETC}/{name}", text, 0o600)
    try:
        host.machine.run("systemctl", "kill", "--signal=KILL", "optillm-proxy.service")
        # it is started again every second: for a moment of each, it is starting and not refused yet
        wait_until(
            lambda: (
                "(78)" in (said := _words(host.optictl("status", check=False).stdout))
                and words in said
            ),
            60,
            pause=0.1,
        )
        # the socket is still there: whoever connects waits
        assert host.machine.show("optillm-proxy.socket", "ActiveState") == "active"
    finally:
        host.configure()
    assert host.ask(timeout=30).status_code == 200


def test_stop_stays_stopped_and_start_starts(host: Host) -> None:
    host.optictl("stop")
    assert host.machine.show("optillm-proxy.socket", "ActiveState") == "inactive"
    stopped = _results(host, "check", "--only", "service", "--only", "health.alive")
    assert stopped["service.active"]["status"] == "fail"
    assert stopped["health.alive"]["status"] == "skip"
    assert stopped["health.alive"]["root_cause"] in ("service.active", "socket.owner")
    said = _words(host.optictl("status", check=False).stdout)
    assert "optictl start" in said
    assert "refused" not in said  # that was in earlier lives
    host.optictl("start")
    assert host.ask().status_code == 200


def _words(text: str) -> str:
    return " ".join(text.split())
