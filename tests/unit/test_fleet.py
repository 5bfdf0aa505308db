"""The pure parts of a fleet: which wheels a host needs, and what Ansible's events tell."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, ClassVar

import pytest

from optictl.deployment import render
from optictl.fleet import playbook_events, rollout
from optictl.fleet.event_records import Failure, HostInfo, Interpreter, RequestedDeployment
from optictl.fleet.playbook_events import Host, PlaybookEvents
from optictl.host import playbooks, wheels
from optictl.releases import locks
from optictl.releases.targets import Pin, pins, target
from optictl.releases.wheelhouse import _batches

SHIPPED = sorted(path.name for path in locks.shipped_locks().glob("*-proxy.txt"))
LOCK = """# a lock
both==1.0 ; sys_platform == 'linux' \\
    --hash=sha256:aa \\
    --hash=sha256:bb
old==2.0 ; python_full_version < '3.11' and sys_platform == 'linux' \\
    --hash=sha256:cc
new==3.0 ; python_full_version >= '3.11' \\
    --hash=sha256:dd
arm==4.0 ; platform_machine == 'aarch64' \\
    --hash=sha256:ee
"""


class TestTargets:
    @pytest.mark.parametrize(
        ("architecture", "python", "names"),
        [
            ("x86_64", (3, 10), ["both", "old"]),
            ("x86_64", (3, 13), ["both", "new"]),
            ("aarch64", (3, 11), ["both", "new", "arm"]),
        ],
    )
    def test_markers_are_judged_for_the_host_and_not_for_this_python(
        self, architecture: str, python: tuple[int, int], names: list[str]
    ) -> None:
        assert [pin.name for pin in pins(LOCK, target(architecture, python, (2, 36)))] == names

    def test_a_pin_keeps_every_digest(self) -> None:
        first = pins(LOCK, target("x86_64", (3, 12), (2, 36)))[0]
        assert first.line == "both==1.0 --hash=sha256:aa --hash=sha256:bb"

    @pytest.mark.parametrize(
        "line", ["loose>=1 --hash=sha256:aa", "bare==1.0", "star==1.* --hash=sha256:aa"]
    )
    def test_what_is_no_hash_lock_is_refused(self, line: str) -> None:
        with pytest.raises(ValueError, match="not a pinned"):
            pins(line, target("x86_64", (3, 12), (2, 36)))

    def test_hosts_with_a_late_c_library_share_a_wheelhouse(self) -> None:
        assert target("x86_64", (3, 12), (2, 36)) == target("x86_64", (3, 12), (2, 41))
        assert target("x86_64", (3, 12), (2, 31)).name == "x86_64-cp312-glibc2.31"

    def test_no_platform_tag_is_later_than_the_host(self) -> None:
        tags = target("aarch64", (3, 12), (2, 31)).platforms
        assert tags[0] == "manylinux_2_31_aarch64"
        assert "manylinux2014_aarch64" in tags
        assert not {"manylinux_2_32_aarch64", "manylinux_2_28_x86_64"} & set(tags)

    @pytest.mark.parametrize("lock", ["optictl.txt", *SHIPPED])
    @pytest.mark.parametrize("python", [(3, 10), (3, 13)])
    def test_the_shipped_locks_can_be_read(self, lock: str, python: tuple[int, int]) -> None:
        found = pins((locks.shipped_locks() / lock).read_text(), target("aarch64", python, (2, 34)))
        assert len(found) > 15
        assert len({pin.name for pin in found}) == len(found)

    def test_pip_is_never_asked_for_two_versions_of_one_package(self) -> None:
        a, b, other = (
            Pin("a", "1", frozenset("x")),
            Pin("a", "2", frozenset("y")),
            Pin("b", "1", frozenset("z")),
        )
        assert _batches([a, other, b, a]) == [[a, other], [b]]


def test_optictl_packs_itself(tmp_path: Path) -> None:
    """From a checkout too; twice the same, and another content beside it."""
    first = wheels.pack_optictl(tmp_path, render.template_directory())
    text = first.read_bytes()
    assert wheels.pack_optictl(tmp_path, render.template_directory()) == first
    assert first.read_bytes() == text
    assert wheels.pack_optictl(tmp_path, render.template_directory() / "locks") != first
    with zipfile.ZipFile(first) as wheel:
        names = set(wheel.namelist())
        record = next(name for name in names if name.endswith("RECORD"))
        listed = {line.split(",")[0] for line in wheel.read(record).decode().splitlines()}
    assert listed == names
    assert {
        "optictl/guard/app.py",
        "optictl/templates/locks/optictl.txt",
        "optictl/cli/fleet.py",
    } <= names
    assert not [name for name in names if "__pycache__" in name]
    assert "optictl/commit.txt" not in names
    named = wheels.pack_optictl(tmp_path, render.template_directory(), "0123456789ab")
    with zipfile.ZipFile(named) as wheel:
        assert wheel.read("optictl/commit.txt") == b"0123456789ab\n"


# -- events, in the shape that ansible-runner gives them


def event(kind: str, host: str, task: str = "", module: str = "", **res: Any) -> dict[str, Any]:
    action = f"optictl.optillm.{module}" if module else "ansible.builtin.set_fact"
    return {
        "event": kind,
        "event_data": {"host": host, "task": task, "task_action": action, "res": res},
    }


def deployed(host: str, **res: Any) -> dict[str, Any]:
    return event("runner_on_ok", host, "Switch, check and smoke", "optillm_deployment", **res)


def told(*events: dict[str, Any]) -> dict[str, Host]:
    found = PlaybookEvents()
    for one in events:
        found.add(one)
    return found.hosts


def began(host: str, task: str = "Switch, check and smoke") -> dict[str, Any]:
    return event("runner_on_start", host, task, "optillm_deployment")


def in_force(host: str, **res: Any) -> dict[str, Any]:
    return event(
        "runner_on_ok",
        host,
        "optictl.optillm.optillm_proxy : Activate optictl",
        "optillm_program",
        **res,
    )


DONE = playbook_events.PRESENT
REQUESTED = {"config": {"port": 1}, "version": "0.3.12", "profile": "proxy", "pinned": ""}


class TestOutcome:
    def test_the_first_red_leaves_the_rest_untouched(self) -> None:
        hosts = told(
            began("a"),
            deployed("a", changed=True, release="0.3.13-y", before="0.3.12-x"),
            in_force("a"),
            began("b"),
            event(
                "runner_on_failed",
                "b",
                "",
                "optillm_deployment",
                msg="502",
                rolled_back=True,
                release="0.3.12-x",
                rc=4,
            ),
        )
        a, b, c = playbook_events.outcome(["a", "b", "c"], hosts, False, DONE)
        assert (a.status, a.found) == ("pass", "0.3.12-x -> 0.3.13-y")
        assert (b.data or {})["state"] == "went back"
        assert "rolled back to 0.3.12-x: 502" in b.found
        assert (c.data or {})["state"] == "untouched"
        assert playbook_events.code([a, b, c]) == 4
        assert playbook_events.headline([a, b, c]) == "3 hosts: 1 done, 1 rolled back, 1 untouched"

    def test_nothing_to_do_is_told_as_such(self) -> None:
        events = (began("a"), deployed("a", changed=False, release="r", before="r"), in_force("a"))
        found = playbook_events.outcome(["a"], told(*events), False, DONE)
        assert found[0].found == "r, unchanged"
        assert playbook_events.headline(found) == "1 host done, 0 changed"
        assert playbook_events.code(found) == 0

    def test_what_changed_where_the_release_did_not(self) -> None:
        answer = deployed("a", changed=True, release="r", before="r", actions=["write /etc/x"])
        found = playbook_events.outcome(
            ["a"], told(began("a"), answer, in_force("a", changed=True)), False, DONE
        )
        assert found[0].found == "r, changed: install optictl, write /etc/x"

    def test_a_host_of_the_batch_whose_optictl_is_still_the_old_one(self) -> None:
        (found,) = playbook_events.outcome(
            ["a"], told(began("a"), deployed("a", changed=True, release="r")), False, DONE
        )
        assert (found.status, (found.data or {})["state"]) == ("skip", "switched")

    def test_a_host_of_the_batch_that_was_only_built_is_untouched(self) -> None:
        hosts = told(
            began("a", "Build and prove"),
            event("runner_on_ok", "a", "Build and prove", "optillm_deployment", changed=True),
        )
        (found,) = playbook_events.outcome(["a"], hosts, False, DONE)
        assert (found.status, (found.data or {})["state"]) == ("skip", "untouched")
        assert playbook_events.code([found]) == 1

    def test_a_host_that_is_gone(self) -> None:
        hosts = told(began("a"), event("runner_on_unreachable", "a", msg="ssh:  timed out"))
        (found,) = playbook_events.outcome(["a"], hosts, False, DONE)
        assert found.found == "unreachable (switch, check and smoke): ssh: timed out"
        assert playbook_events.code([found]) == 1

    def test_an_interrupted_controller(self) -> None:
        found = playbook_events.outcome(["a", "b"], told(began("a")), True, DONE)
        assert [(r.data or {})["state"] for r in found] == ["interrupted", "untouched"]
        assert playbook_events.code(found, interrupted=True) == 130

    def test_an_invalid_configuration(self) -> None:
        hosts = told(
            began("a"),
            event(
                "runner_on_failed",
                "a",
                "",
                "optillm_deployment",
                msg="port: bad",
                rc=78,
                rolled_back=False,
            ),
        )
        assert playbook_events.code(playbook_events.outcome(["a"], hosts, False, DONE)) == 78

    def test_a_task_that_is_not_ours_is_no_phase(self) -> None:
        hosts = told(
            event("runner_on_start", "a", "Settle"),
            event("runner_on_ok", "a", "Settle", ansible_facts={"x": 1}, changed=True),
            event("runner_on_ok", "a", "Settle", ansible_facts={"optillm_proxy_wanted": REQUESTED}),
        )
        assert (hosts["a"].phase, hosts["a"].changed, hosts["a"].answers) == ("", False, {})
        assert hosts["a"].requested == RequestedDeployment({"port": 1}, "0.3.12", "proxy")

    def test_the_lines_of_progress(self) -> None:
        seen = PlaybookEvents()
        assert seen.add(began("a")) == "a  switch, check and smoke"
        done = deployed("a", changed=True)
        assert seen.add(done) == "a  switch, check and smoke: done"
        done["event_data"]["duration"] = 12.4
        assert seen.add(done) == "a  switch, check and smoke: done (12 s)"
        assert PlaybookEvents(foreseen=True).add(done) == ""
        assert seen.add({"event": "playbook_on_stats", "event_data": {}}) == ""


class TestRecords:
    """What the modules of the collection and others report."""

    FACTS: ClassVar[dict[str, Any]] = {
        "architecture": "x86_64",
        "glibc": [2, 36],
        "python": {"path": "/usr/bin/python3", "version": [3, 12]},
        "hand_made": [],
    }

    def test_the_facts_of_a_host(self) -> None:
        hosts = told(event("runner_on_ok", "a", "Read", "optillm_host_info", **self.FACTS))
        python = Interpreter("/usr/bin/python3", (3, 12))
        assert hosts["a"].host_info == HostInfo("x86_64", (2, 36), python)

    def test_an_answer_that_cannot_be_read_is_a_failure_of_its_host(self) -> None:
        hosts = told(
            event("runner_on_start", "a", "Read", "optillm_host_info"),
            event("runner_on_ok", "a", "Read", "optillm_host_info", architecture="x86_64"),
            event("runner_on_ok", "b", "Choose", ansible_facts={"optillm_proxy_wanted": "x"}),
        )
        a, b = playbook_events.outcome(["a", "b"], hosts, False, DONE)
        assert (a.status, b.status) == ("fail", "fail")
        assert "the answer of optillm_host_info cannot be read: glibc: " in a.found
        assert "the answer of optillm_proxy_wanted cannot be read: " in b.found
        assert a.remedy
        assert b.remedy

    def test_a_failure_of_another_collection_has_its_message_only(self) -> None:
        loop = event("runner_on_failed", "a", "Copy", msg=["no", "space"], results="x", rc=78)
        assert told(loop)["a"].failed == Failure("['no', 'space']")
        assert told(event("runner_on_failed", "a"))["a"].failed == Failure("the task failed")

    def test_a_failure_that_the_playbook_ignores_is_none(self) -> None:
        ignored = event("runner_on_failed", "a", "Stop", msg="is not there")
        ignored["event_data"]["ignore_errors"] = True
        assert told(ignored)["a"].failed is None

    @pytest.mark.parametrize(
        "strange",
        [
            {},
            {"event": None, "event_data": None},
            {"event": "runner_on_ok", "event_data": {"host": 7}},
            {"event": "runner_on_ok", "event_data": []},
            {"event": "verbose", "event_data": {}},
        ],
    )
    def test_an_event_about_no_host_says_nothing(self, strange: dict[str, Any]) -> None:
        events = PlaybookEvents()
        assert events.add(strange) == ""
        assert events.hosts == {}


class TestPlanned:
    def test_the_changes_and_the_difference(self) -> None:
        diff = [
            {"before": "a\n", "after": "b\n", "before_header": "x", "after_header": "x"},
            {"prepared": "mode y\n"},
        ]
        answer = deployed("a", changed=True, actions=["write x", "mode y"], diff=diff, before="r")
        wheels = event("runner_on_ok", "a", "Send the wheels", "optillm_wheels", changed=True)
        (found,) = playbook_events.planned(["a"], told(began("a"), wheels, answer))
        assert found.found == "3 changes: send wheels, write x, mode y"
        assert (found.data or {})["diff"] == "--- x\n+++ x\n@@ -1 +1 @@\n-a\n+b\nmode y\n"
        assert playbook_events.headline([found]) == "1 host, 1 would change"

    def test_nothing_to_do(self) -> None:
        (found,) = playbook_events.planned(
            ["a"], told(began("a"), deployed("a", changed=False, before="r"))
        )
        assert (found.found, playbook_events.headline([found])) == (
            "no changes",
            "1 host, 0 would change",
        )


class TestStatus:
    @staticmethod
    def info(host: str, release: str = "0.3.12-x", **more: Any) -> dict[str, Any]:
        facts = {
            "version": release.split("-")[0],
            "release": release,
            "tiers": {"health.alive": "pass"},
            "drift": [],
        }
        return event(
            "runner_on_ok",
            host,
            "Tell",
            "optillm_info",
            **{**facts, "restarts": 0, "problem": "", **more},
        )

    def test_who_differs_from_most(self) -> None:
        hosts = told(self.info("a"), self.info("b"), self.info("c", "0.3.13-y"))
        found = {r.id: r for r in playbook_events.state("abc", hosts)}
        assert [found[name].status for name in "abc"] == ["pass", "pass", "warn"]
        assert (found["c"].data or {})["differs"] == ["version", "release"]
        assert playbook_events.code(list(found.values())) == 0

    @pytest.mark.parametrize(
        "wrong",
        [
            {"drift": ["mode x"]},
            {"tiers": {"health.connected": "fail"}},
            {"problem": "down"},
            {"release": ""},
        ],
    )
    def test_what_is_red(self, wrong: dict[str, Any]) -> None:
        (found,) = playbook_events.state(
            ["a"], told(self.info("a", **wrong) if "release" not in wrong else self.info("a", ""))
        )
        assert found.status == "fail"

    def test_a_host_that_says_nothing_has_no_say(self) -> None:
        hosts = told(self.info("a"), event("runner_on_unreachable", "b", msg="gone"))
        assert [r.status for r in playbook_events.state("ab", hosts)] == ["pass", "fail"]

    def test_a_draw_is_decided_the_same_way_every_time(self) -> None:
        facts = [{"v": "1"}, {"v": "2"}]
        assert (
            playbook_events.majority(facts, ["v"])
            == playbook_events.majority(reversed(facts), ["v"])
            == {"v": "2"}
        )
        assert playbook_events.majority([], ["v"]) == {}


@pytest.mark.parametrize(
    ("text", "wanted"), [("1,25%", [1, "25%"]), ("3", [3]), ("1, 2 ,100%", [1, 2, "100%"])]
)
def test_batches(text: str, wanted: list[int | str]) -> None:
    assert rollout.batches(text) == wanted


@pytest.mark.parametrize("text", ["", "0", "1,,2", "a", "-1", "1%%"])
def test_what_is_no_batch(text: str) -> None:
    with pytest.raises(ValueError):
        rollout.batches(text)


def test_an_inventory_is_judged_before_anything_starts() -> None:
    assert (
        rollout._problems(None)
        == rollout._problems({"model": "jerry-xl", "base_models": ["jerry-xl"]})
        == []
    )
    (problem,) = rollout._problems({"strategys": ["moa"]})
    assert problem.startswith("strategys: ")


def test_the_collection_is_where_ansible_looks() -> None:
    names = {path.stem for path in playbooks.PLAYBOOKS.glob("*.yml")}
    assert names == {"look", "plan", "roll", "rollback", "status", "check", "smoke"}
