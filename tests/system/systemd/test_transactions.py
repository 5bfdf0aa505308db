"""optictl killed at each step with systemd, two at once, under load, and among foreign files."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator

import pytest

from testing.host import ETC, OPT, Host
from testing.load import Load, row, slow_upstream
from testing.support import PROXY_KEY, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.root]

UNIT = "optillm-proxy.service"
FILE = f"/etc/systemd/system/{UNIT}"
SIBLING = "optillm-proxy-next.service"
OLD, NEW = "0.3.12", "0.3.13"
#: Where a program lies that is called in systemctl's place, and what it was told and did.
PLACE = "/run/faults"
#: It lets questions through and counts everything else. At call number `at` it does `what`.
SYSTEMCTL = f"""\
#!/bin/sh
case " $* " in
  *" show "*|*" --version "*|*" show-environment "*) exec /usr/bin/systemctl "$@";;
esac
cd {PLACE}
echo "$*" >>calls
if [ "$(wc -l <calls)" = "$(cat at)" ]; then
  case $(cat what) in
    before) kill -9 $PPID; touch ended; exit;;
    during) kill -9 $PPID; /usr/bin/systemctl "$@"; touch ended; exit;;
    hold) touch held; while [ ! -e go ]; do sleep 0.1; done;;
  esac
fi
exec /usr/bin/systemctl "$@"
"""
Record = Callable[[str, object], None]


@pytest.fixture(scope="module", autouse=True)
def installed(host: Host) -> Iterator[None]:
    """A running deployment, whatever the module before left; one strategy: proofs are short."""
    host.renew()
    host.machine.run("mkdir", "-p", PLACE)
    host.machine.write(f"{PLACE}/systemctl", SYSTEMCTL, 0o755)
    _configure(host, 60)
    host.optictl("install", "--yes", "--no-smoke")
    yield
    host.upstream.respond = None
    host.machine.run("rm", "-rf", PLACE)
    host.configure()
    host.optictl("install", "--yes", "--no-smoke")


def _configure(host: Host, seconds: int) -> None:
    """`seconds` stand in the unit and in the provider file."""
    host.configure("strategies: [bon]\nreleases: {keep: 3}\n", request=seconds)


def _ordered(host: Host, what: str, at: int, *arguments: str) -> list[str]:
    """The words of an optictl that meets a fault at its call `at` of systemctl."""
    host.machine.run(
        "sh", "-c", f"cd {PLACE} && rm -f calls ended held go && echo {what} >what && echo {at} >at"
    )
    return ["env", f"PATH={PLACE}:/usr/sbin:/usr/bin", str(host.program), *arguments]


def _killed(host: Host, what: str, at: int, *arguments: str) -> bool:
    """Whether the fault was met; else the command ended well."""
    result = host.machine.run(*_ordered(host, what, at, *arguments), check=False)
    if result.returncode == 0:
        return False
    # the systemctl that it had begun goes on
    _wait(host, "ended", result.stdout + result.stderr)
    return True


def _wait(host: Host, mark: str, said: str = "") -> None:
    there = ("test", "-e", f"{PLACE}/{mark}")
    wait_until(
        lambda: not host.machine.run(*there, check=False).returncode,
        60,
        f"{mark}: {said}",
        pause=0.1,
    )


def _call(host: Host) -> str:
    return host.machine.read(f"{PLACE}/calls").splitlines()[-1]


def _serves(host: Host, *allowed: int, release: str = "") -> None:
    """The port answers, and each process behind it has an `allowed` timeout and the `release`."""
    answer = host.ask()
    assert (answer.status_code, answer.headers["x-optillm-strategy"]) == (200, "bon"), answer.text
    pids = [
        pid
        for pid in (host.machine.show(unit, "MainPID") for unit in (UNIT, SIBLING))
        if pid not in ("0", "")
    ]
    assert pids
    for pid in pids:
        words = host.machine.run("cat", f"/proc/{pid}/cmdline").stdout.split("\0")
        seconds = words[words.index("--request-timeout") + 1]
        assert int(seconds) in allowed
        if release:
            # a sealed process has its own view of the directories: only the inode tells which it is
            places = (f"/proc/{pid}/cwd/.", f"{OPT}/releases/{release}/work/.")
            identities = host.machine.run("stat", "-c", "%d:%i", *places).stdout.split()
            assert identities[0] == identities[1]
        # its own HOME, so its own provider file
        read = (
            f"cat $(tr '\\0' '\\n' </proc/{pid}/environ | "
            "sed -n s/^HOME=//p)/.optillm/proxy_config.yaml"
        )
        assert f"request: {seconds}" in host.machine.run("sh", "-c", read).stdout


def _converges(host: Host, seconds: int, version: str = OLD) -> None:
    """`install` ends in exactly the state that the configuration asks for."""
    host.optictl("install", "--yes", "--no-smoke")
    assert (
        json.loads(host.optictl("install", "--dry-run", "--output", "json").stdout)["results"] == []
    )
    assert host.machine.show(SIBLING, "LoadState") == "not-found"
    assert _active_release(host).startswith(f"{version}-")
    _serves(host, seconds, release=_active_release(host))


def test_a_first_installation_killed_at_every_step(host: Host, record_property: Record) -> None:
    """Each run goes on where the one before was killed, and is killed later."""
    host.uninstall()
    calls = []
    for at in range(1, 20):
        if not _killed(host, "before", at, "install", "--yes", "--no-smoke"):
            break
        calls.append(_call(host))
        # nothing that systemd would start, or all of it
        host.machine.run("sh", "-c", f"test ! -e {FILE} || test -e {OPT}/current/release.json")
    record_property(
        "said", f"first install: killed before {len(calls)} calls of systemctl: {'; '.join(calls)}"
    )
    assert len(calls) >= 3
    _serves(host, 60)
    _converges(host, 60)


def test_a_reinstallation_killed_before_every_step(host: Host, record_property: Record) -> None:
    seconds, calls = 60, []
    for at in range(1, 20):
        seconds = 121 - seconds
        _configure(host, seconds)
        met = _killed(host, "before", at, "install", "--yes", "--no-smoke")
        if met:
            calls.append(_call(host))
        # killed before a step, the old process may still serve; not killed, the new one does
        _serves(host, *((60, 61) if met else (seconds,)))
        _converges(host, seconds)
        if not met:
            break
    record_property(
        "said", f"reinstall: killed before {len(calls)} calls of systemctl: {'; '.join(calls)}"
    )
    assert len(calls) >= 6


def test_an_upgrade_killed_on_its_way(host: Host, record_property: Record) -> None:
    """systemctl itself goes on, as when a terminal is lost. Later calls are a reinstallation's."""
    seconds = 60
    _configure(host, seconds)
    _converges(host, seconds)
    calls = []
    for at in range(1, 5):
        assert _killed(host, "during", at, "upgrade", NEW, "--yes")
        calls.append(_call(host))
        _serves(host, 60, 61)
        # the configuration changes last: until then the old release is asked for
        _converges(host, seconds)
    host.optictl("upgrade", NEW, "--yes")
    assert _active_release(host).startswith(f"{NEW}-")
    _serves(host, seconds, release=_active_release(host))
    assert f"version: {NEW}" in host.machine.read(f"{ETC}/optictl.yaml")
    record_property(
        "said", f"upgrade: killed during {len(calls)} calls of systemctl: {'; '.join(calls)}"
    )
    _configure(host, 60)
    _converges(host, 60)


def _active_release(host: Host) -> str:
    return host.machine.run("sh", "-c", f"basename $(readlink {OPT}/current)").stdout.strip()


def test_two_at_once_under_load(host: Host, record_property: Record) -> None:
    """A second optictl during a reinstallation that restarts: refused, and no client notices."""
    pid = host.machine.show(UNIT, "MainPID")
    host.upstream.respond = slow_upstream
    with Load(host.port, PROXY_KEY).running() as load:
        _configure(host, 61)
        first = host.machine.spawn(*_ordered(host, "hold", 2, "install", "--yes", "--no-smoke"))
        try:
            _wait(host, "held")
            refused = {
                words: host.optictl(*words, "--yes", check=False)
                for words in (("install",), ("uninstall", "--force"))
            }
        finally:
            host.machine.run("touch", f"{PLACE}/go")
            said, _ = first.communicate(timeout=120)
    host.upstream.respond = None
    record_property("load", row("reinstall, a second one refused", load))
    assert first.returncode == 0, said
    for second in refused.values():
        assert second.returncode == 1
        told = " ".join(second.stderr.split())
        assert "is working on this deployment" in told
        assert "wait until it ends" in told
        assert "error process " in told
    assert host.machine.show(UNIT, "MainPID") != pid
    for tally in (load.gets, load.strategies):
        assert tally.count("ok") == len(tally.requests) > 10
    _serves(host, 61)
    _converges(host, 61)


def _plan(host: Host) -> subprocess.CompletedProcess[str]:
    return host.optictl("install", "--dry-run", check=False)


def test_files_of_somebody_else(host: Host) -> None:
    """Said by the plan; files are made root's, directories are for a person to look at."""
    release = host.machine.run("readlink", "-f", f"{OPT}/current").stdout.strip()
    host.machine.run("chown", "nobody", FILE, f"{ETC}/env", f"{release}/guard/app.py")
    said = " ".join(_plan(host).stdout.split())
    assert f"replace {FILE} (it belongs to uid 65534, not 0)" in said
    assert f"owner {ETC}/env (it belongs to uid 65534, not 0)" in said
    assert "the active release is broken:" in said
    assert "guard/app.py belongs to uid 65534, not 0" in said
    # it would be built anew; tests/integration/transactions does
    host.machine.run("chown", "root", f"{release}/guard/app.py")
    host.machine.run("chown", "nobody", "/var/lib/optillm-proxy")
    refused = host.optictl("install", "--yes", check=False)
    assert refused.returncode == 1
    assert "/var/lib/optillm-proxy belongs to uid 65534, not 0" in " ".join(refused.stderr.split())
    assert "chown -R 0 /var/lib/optillm-proxy" in " ".join(refused.stderr.split())
    host.machine.run("chown", "-R", "0", "/var/lib/optillm-proxy")
    _converges(host, 61)
    assert host.machine.run("stat", "-c", "%u", FILE, f"{ETC}/env").stdout.split() == ["0", "0"]
    # a link in a file's place is not written through
    host.machine.run("sh", "-c", f"cp {FILE} /srv/other && rm {FILE} && ln -s /srv/other {FILE}")
    assert host.optictl("install", "--yes", check=False).returncode == 1
    host.optictl("install", "--yes", "--no-smoke", "--force")
    assert host.machine.run("stat", "-c", "%F", FILE).stdout.strip() == "regular file"
    host.machine.run("sh", "-c", f"rm {FILE}.kept-* /srv/other")
    _serves(host, 61)
    _converges(host, 61)
