"""Plans: facts in, changes out. No disk is touched."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest

from optictl.deployment import artefacts as deployment_artefacts
from optictl.deployment import paths
from optictl.deployment.artefacts import Artefact
from optictl.deployment.config import Config
from optictl.deployment.manifest import Manifest, digest
from optictl.deployment.render import Host
from optictl.facts.installed_files import Found
from optictl.facts.units import Running
from optictl.host.files import FileFacts
from optictl.host.systemd import Unit
from optictl.operations import plan
from optictl.operations.plan import Release, TakenOver
from optictl.operations.steps import Step
from optictl.releases.locks import ReleaseSpec

PLACES = paths.system(Path("/nowhere"))
UID = 1000
SECRET = "optillm-a-very-secret-key-0123456789"

ORDINARY = Artefact(Path("/nowhere/unit"), "new\n", 0o644)
KEPT = Artefact(Path("/nowhere/optictl.yaml"), "new\n", 0o644, keep=True)
#: optictl wrote the old text of ORDINARY once
WROTE = Manifest({str(ORDINARY.path): (digest("old\n"),)})
HIDDEN = Artefact(Path("/nowhere/proxy_key"), SECRET, 0o600, keep=True, secret=True)


def file(mode: int = 0o644, uid: int = UID) -> FileFacts:
    return FileFacts("file", mode, uid, 4)


MISSING = FileFacts("missing")
LINK = FileFacts("link", 0o777, UID, 4)
DIRECTORY = FileFacts("directory", 0o755, UID, 4)


@dataclass(frozen=True)
class Row:
    """A wanted file, the present one (text None: not read), the action (None: none) and why."""

    title: str
    wanted: Artefact
    facts: FileFacts
    text: str | None
    action: str | None = None
    reason: str = ""
    edited: bool = False


TABLE = [
    Row("nothing there", ORDINARY, MISSING, None, "create", "missing"),
    Row("as wanted", ORDINARY, file(), "new\n"),
    Row("other text", ORDINARY, file(), "old\n", "replace", "differs"),
    Row(
        "edited text",
        ORDINARY,
        file(),
        "mine\n",
        "replace",
        "it was edited since optictl wrote it",
        edited=True,
    ),
    Row("wider mode", ORDINARY, file(0o666), "new\n", "mode", "0666, not 0644"),
    Row("narrower mode", ORDINARY, file(0o600), "new\n", "mode", "0600, not 0644"),
    Row("another's", ORDINARY, file(uid=0), "new\n", "replace", "uid 0, not 1000"),
    Row("a link", ORDINARY, LINK, None, "replace", "a link is there", edited=True),
    Row(
        "a socket",
        ORDINARY,
        FileFacts("other", 0o755, UID, 0),
        None,
        "replace",
        "no file is there",
        edited=True,
    ),
    Row("kept, nothing there", KEPT, MISSING, None, "create", "missing"),
    Row("kept, other text", KEPT, file(), "old\n"),
    Row("kept, never read", KEPT, file(), None),
    Row("kept, root's", KEPT, file(uid=0), None),
    Row(
        "kept, another's", KEPT, file(0o666, uid=7), None, "owner", "it belongs to uid 7, not 1000"
    ),
    Row("kept, a link to where the operator has it", KEPT, LINK, None),
    Row("kept, closed further by the operator", KEPT, file(0o640), None),
    Row("kept, open to more than it should be", KEPT, file(0o666), None, "mode", "0666"),
    Row("secret, nothing there", HIDDEN, MISSING, None, "create", "missing"),
    Row("secret, there", HIDDEN, file(0o600), None),
    Row("secret, closed further", HIDDEN, file(0o400), None),
    Row("secret, readable by others", HIDDEN, file(0o644), None, "mode", "0644, not 0600"),
    Row("secret, a link to a secret store", HIDDEN, LINK, None),
]


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row.title)
def test_facts_in_change_out(row: Row) -> None:
    change = plan.file_step(row.wanted, Found(row.facts, row.text), UID, WROTE)
    assert (change.action if change else None) == row.action
    if change is not None:
        assert row.reason in change.reason
        assert change.edited is row.edited
        assert change.target == str(row.wanted.path)
        assert change.artefact.path == row.wanted.path


def test_a_diff_shows_what_changes() -> None:
    change = plan.file_step(
        replace(ORDINARY, text="a\nnew\n"), Found(file(), "a\nold\n"), UID, WROTE
    )
    assert change is not None
    assert change.diff.splitlines() == [
        "--- /nowhere/unit",
        "+++ /nowhere/unit",
        "@@ -1,2 +1,2 @@",
        " a",
        "-old",
        "+new",
    ]


def test_a_new_file_is_a_diff_against_nothing() -> None:
    change = plan.file_step(ORDINARY, Found(MISSING, None), UID, WROTE)
    assert change is not None
    assert change.diff.splitlines() == [
        "--- /dev/null",
        "+++ /nowhere/unit",
        "@@ -0,0 +1 @@",
        "+new",
    ]


@pytest.mark.parametrize(
    ("wanted", "found", "mended"),
    [
        (ORDINARY, 0o666, 0o644),
        (ORDINARY, 0o600, 0o644),
        (KEPT, 0o666, 0o644),
        (HIDDEN, 0o440, 0o400),
    ],
)
def test_the_mode_it_is_given(wanted: Artefact, found: int, mended: int) -> None:
    change = plan.file_step(wanted, Found(file(found), "new\n"), UID, WROTE)
    assert change is not None
    assert change.artefact.mode == mended


def test_a_mode_has_no_diff() -> None:
    change = plan.file_step(ORDINARY, Found(file(0o666), "new\n"), UID, WROTE)
    assert change is not None
    assert change.diff == ""


def everything(config: Config | None = None) -> list[Artefact]:
    config = config or Config()
    return deployment_artefacts.operators_files(
        "# a configuration\n", config, PLACES, SECRET
    ) + deployment_artefacts.rendered_files(config, PLACES, Host())


def kind_of(artefact: Artefact) -> Literal["directory", "link", "file"]:
    return "directory" if artefact.directory else "link" if artefact.link else "file"


def as_wanted(artefacts: list[Artefact]) -> dict[Path, Found]:
    return {
        a.path: Found(FileFacts(kind_of(a), a.mode, UID, 1), None if a.keep else a.text)
        for a in artefacts
    }


def nothing(artefacts: list[Artefact]) -> dict[Path, Found]:
    return {a.path: Found(MISSING, None) for a in artefacts}


NEVER = Manifest()


def release(
    name: str, built: bool, current: str | None, broken: str = "", unit_first: bool = False
) -> Release:
    """What a plan knows of the release of this name."""
    wanted = ReleaseSpec(name, "0.3.12", "proxy", Path(), (), name)
    return Release(wanted, built, current, broken, unit_first)


def steps_of(
    artefacts: list[Artefact],
    found: dict[Path, Found],
    release: Release,
    wrote: Manifest = NEVER,
    running: Running | None = None,
    taken_over: TakenOver | None = None,
) -> list[Step]:
    return plan.installation(artefacts, found, UID, wrote, release, PLACES, running, taken_over)


def unit(name: str, **properties: Any) -> Unit:
    running = Unit(
        name,
        load_state="loaded",
        active_state="active",
        unit_file_state="enabled",
        main_pid=7,
    )
    return replace(running, **properties)


SERVICE, SOCKET = PLACES.service_unit, PLACES.socket_unit
TRIAL = f"{PLACES.trial_name}.service"
RELAY = (PLACES.upstream_socket.name, PLACES.upstream_service.name)


def running(stale: str = "", sibling: bool = False, **states: str) -> Running:
    """Everything runs as it should, but for the states given by the last word of a unit's name."""
    found = {
        name: unit(name, active_state=states.get(name.rpartition(".")[2], "active"))
        for name in (*RELAY, SOCKET, SERVICE)
    }
    return Running([RELAY[0], SOCKET, SERVICE], found, stale, sibling)


def replace_state(known: Unit) -> Unit:
    """The same unit, which does not start at boot."""
    return replace(known, unit_file_state="disabled")


class TestWholeInstallation:
    def test_on_an_empty_machine_everything_is_made_in_a_safe_order(self) -> None:
        artefacts = everything()
        steps = steps_of(
            artefacts, nothing(artefacts), release("0.3.12-abc", built=False, current=None)
        )
        made = [s.target for s in steps if s.action == "create"]
        assert set(made) == {str(a.path) for a in artefacts}
        assert (steps[0].action, steps[0].target) == ("build", "0.3.12-abc")
        actions = [(s.action, s.target) for s in steps]
        # nothing would be started before the release is active, and the view for people comes last
        assert actions[-2:] == [("switch", "0.3.12-abc"), ("create", str(PLACES.home / ".optillm"))]
        assert made.index(str(PLACES.service)) > made.index(str(PLACES.upstream_service))
        assert next(s for s in steps if s.action == "switch").reason == "no release is active"

    def test_where_all_is_as_wanted_nothing_changes(self) -> None:
        artefacts = everything()
        for systemd in (None, running()):
            assert (
                steps_of(
                    artefacts,
                    as_wanted(artefacts),
                    release("r", built=True, current="r"),
                    running=systemd,
                )
                == []
            )

    @pytest.mark.parametrize("unit_first", [False, True])
    def test_a_unit_never_gives_a_flag_that_its_guard_does_not_know(self, unit_first: bool) -> None:
        artefacts = everything()
        found = as_wanted(artefacts) | {PLACES.service: Found(file(), "old\n")}
        wrote = Manifest({str(PLACES.service): (digest("old\n"),)})
        steps = steps_of(
            artefacts,
            found,
            release("new", built=False, current="old", unit_first=unit_first),
            wrote,
        )
        last = [("switch", "new"), ("replace", str(PLACES.service))]
        assert [(s.action, s.target) for s in steps] == [
            ("build", "new"),
            *(reversed(last) if unit_first else last),
        ]
        assert any("old is active" in s.reason for s in steps)

    def test_a_release_that_is_there_already_is_only_switched_to(self) -> None:
        artefacts = everything()
        steps = steps_of(artefacts, as_wanted(artefacts), release("new", built=True, current="old"))
        assert [s.action for s in steps] == ["switch"]

    def test_what_runs_is_touched_once_a_sibling_is_ready(self) -> None:
        artefacts = everything()
        steps = steps_of(
            artefacts,
            as_wanted(artefacts),
            release("new", built=False, current="old"),
            running=running(),
        )
        assert [s.action for s in steps] == ["build", "sibling", "switch", "restart"]

    def test_a_broken_release_is_built_beside(self) -> None:
        artefacts = everything()
        asked = release(
            "r.2", built=False, current="r", broken="the one in force is broken: numpy is missing"
        )
        steps = steps_of(artefacts, as_wanted(artefacts), asked, running=running())
        assert next((s.action, s.reason) for s in steps) == (
            "build",
            "the one in force is broken: numpy is missing",
        )
        assert steps[-1].action == "restart"

    def test_an_edited_unit_is_shown_before_it_is_replaced(self) -> None:
        artefacts = everything()
        found = as_wanted(artefacts)
        mine = str(found[PLACES.service].text).replace("RestartSec=1", "RestartSec=60")
        found[PLACES.service] = Found(file(), mine)
        (step,) = steps_of(artefacts, found, release("r", built=True, current="r"))
        assert "-RestartSec=60" in step.diff
        assert "+RestartSec=1" in step.diff
        assert step.edited

    def test_a_process_that_read_older_files_is_replaced(self) -> None:
        artefacts = everything()
        systemd = running(stale="/etc/optillm-proxy/env changed since process 7 started")
        steps = steps_of(
            artefacts, as_wanted(artefacts), release("r", built=True, current="r"), running=systemd
        )
        assert [s.action for s in steps] == ["sibling", "restart"]
        assert "env changed" in steps[-1].reason

    def test_a_provider_file_that_was_gone_is_read_anew(self) -> None:
        artefacts = everything()
        provider = next(a.path for a in artefacts if a.path.name == "proxy_config.yaml")
        found = as_wanted(artefacts) | {provider: nothing(artefacts)[provider]}
        steps = steps_of(artefacts, found, release("r", built=True, current="r"), running=running())
        assert [s.action for s in steps] == ["create", "sibling", "restart"]

    def test_a_lost_link_to_the_release_is_there_before_a_sibling_needs_it(self) -> None:
        artefacts = everything()
        steps = steps_of(
            artefacts,
            as_wanted(artefacts),
            release("r", built=True, current=None),
            running=running(),
        )
        assert [s.action for s in steps] == ["switch", "sibling", "restart"]

    def test_a_leftover_sibling_is_ended(self) -> None:
        artefacts = everything()
        steps = steps_of(
            artefacts,
            as_wanted(artefacts),
            release("r", built=True, current="r"),
            running=running(sibling=True),
        )
        assert [(s.action, s.target) for s in steps] == [("stop", PLACES.sibling_unit)]

    def test_a_service_made_by_hand_gives_the_port_to_the_socket(self) -> None:
        artefacts = everything()
        steps = steps_of(
            artefacts,
            as_wanted(artefacts),
            release("r", built=True, current="r"),
            running=running(socket="inactive"),
        )
        told = [(s.action, s.target) for s in steps]
        assert told == [("trial", TRIAL), ("stop", SERVICE), ("start", SERVICE)]

    def test_a_new_port_cannot_be_had_without_a_gap_and_the_plan_says_so(self) -> None:
        artefacts = everything()
        found = as_wanted(artefacts) | {PLACES.socket: Found(file(), "old\n")}
        wrote = Manifest({str(PLACES.socket): (digest("old\n"),)})
        steps = steps_of(artefacts, found, release("r", built=True, current="r"), wrote, running())
        told = [(s.action, s.target) for s in steps]
        new = ("replace", str(PLACES.socket))
        assert told == [("trial", TRIAL), new, ("reload", "systemd"), ("restart", SOCKET)]
        assert "refused until" in steps[-1].reason

    def test_what_does_not_start_is_not_enabled(self) -> None:
        """The release is tried in its sandbox before any file is written; start precedes enable."""
        artefacts = everything()
        down = running(service="inactive", socket="inactive")
        none = {name: replace_state(unit) for name, unit in down.found.items()}
        nothing_runs = replace(down, found=none)
        first = release("r", built=False, current=None)
        steps = [
            s.action for s in steps_of(artefacts, nothing(artefacts), first, running=nothing_runs)
        ]
        assert steps[:2] == ["build", "trial"]
        assert steps.index("start") < steps.index("enable")

    @pytest.mark.parametrize("bridged", [True, False])
    def test_a_service_written_by_hand_is_replaced_with_its_drop_ins(self, bridged: bool) -> None:
        artefacts = everything()
        text = "ExecStart=optillm --optillm-api-key hunter2\n"
        found = nothing(artefacts) | {PLACES.service: Found(file(), text)}
        drop_in = PLACES.units / f"{SERVICE}.d/old.conf"
        by_hand = TakenOver([drop_in], bridged, lambda text: text.replace("hunter2", "(hidden)"))
        alone = running(service="active" if bridged else "inactive", socket="inactive")
        asked = release("r", built=True, current=None)
        made = steps_of(artefacts, found, asked, running=alone, taken_over=by_hand)
        told = [(s.action, s.target) for s in made]
        unit = next(s for s in made if s.target == str(PLACES.service))
        assert unit.edited
        assert "hunter2" not in unit.diff
        assert "(hidden)" in unit.diff
        assert told.index(("trial", TRIAL)) < told.index(("aside", str(drop_in)))
        last = ("handover", SERVICE) if bridged else ("start", SERVICE)
        assert told.index(("aside", str(drop_in))) < told.index(last)
        # a reload would put the new unit's packet filter around the old process
        assert (("reload", "systemd") in told[told.index(("aside", str(drop_in))) :]) is not bridged
        assert ("stop", SERVICE) not in told

    def test_the_timer_comes_when_the_service_runs_and_goes_when_it_is_not_wanted(self) -> None:
        config = Config.model_validate({"monitoring": {"timer": True}})
        places = paths.system()
        timer, service = places.check_timer, places.check_service
        units = deployment_artefacts.monitoring_files(config, places, Host())
        assert [a.path for a in units] == [service, timer]
        assert (
            deployment_artefacts.monitoring_files(config, PLACES, Host())
            == deployment_artefacts.monitoring_files(Config(), places, Host())
            == []
        )
        asked = release("0.3.12-abc", True, "0.3.12-abc")
        known = {name: unit(name) for name in (places.service_unit, places.socket_unit)}
        absent = {
            path.name: Unit(path.name, load_state="not-found", active_state="inactive")
            for path in (service, timer)
        }

        def steps(
            artefacts: list[Artefact],
            found: dict[Path, Found],
            wrote: Manifest,
            seen: dict[str, Unit],
        ) -> list[str]:
            now = Running([places.socket_unit, places.service_unit], {**known, **seen})
            made = plan.installation(artefacts, found, UID, wrote, asked, places, now)
            return [f"{step.action} {Path(step.target).name}" for step in made]

        assert steps(units, nothing(units), NEVER, absent) == [
            f"create {service.name}",
            f"create {timer.name}",
            "reload systemd",
            f"enable {timer.name}",
            f"start {timer.name}",
        ]
        there = {
            service.name: unit(service.name, active_state="inactive"),
            timer.name: unit(timer.name, sub_state="waiting"),
        }
        assert steps(units, as_wanted(units), NEVER, there) == []
        spent = {**there, timer.name: unit(timer.name, sub_state="elapsed")}
        assert steps(units, as_wanted(units), NEVER, spent) == [f"restart {timer.name}"]
        wrote = Manifest({str(a.path): (digest(a.text),) for a in units})
        assert steps([], as_wanted(units), wrote, there) == [
            f"stop {service.name}",
            f"stop {timer.name}",
            f"disable {timer.name}",
            f"remove {service.name}",
            f"remove {timer.name}",
            "reload systemd",
        ]

    def test_what_an_earlier_configuration_needed_goes(self) -> None:
        artefacts = [a for a in everything() if a.path != PLACES.upstream_service]
        found = as_wanted(artefacts) | {PLACES.upstream_service: Found(file(), "old\n")}
        wrote = Manifest({str(PLACES.upstream_service): (digest("old\n"),)})
        steps = steps_of(artefacts, found, release("r", built=True, current="r"), wrote, running())
        assert [(s.action, s.target) for s in steps] == [
            ("stop", RELAY[1]),
            ("remove", str(PLACES.upstream_service)),
            ("reload", "systemd"),
        ]
        assert not steps[1].edited


class TestSecrets:
    def test_stand_in_no_diff_and_no_json(self) -> None:
        artefacts = everything()
        for found in (
            nothing(artefacts),
            {a.path: Found(LINK, "what was there: " + SECRET) for a in artefacts},
        ):
            steps = steps_of(artefacts, found, release("r", built=False, current=None))
            assert SECRET not in repr([s.as_dict() for s in steps])

    def test_the_operators_files_are_kept_and_closed(self) -> None:
        made = {a.path: a for a in everything()[:3]}
        assert all(a.keep for a in made.values())
        assert [
            (made[p].mode, made[p].secret) for p in (PLACES.config, PLACES.env, PLACES.proxy_key)
        ] == [
            (0o644, False),
            (0o600, True),
            (0o600, True),
        ]

    def test_what_is_rendered_may_be_read_by_the_service(self) -> None:
        rendered = deployment_artefacts.rendered_files(Config(), PLACES, Host())
        assert {a.mode for a in rendered if not (a.directory or a.link)} == {0o644}
        assert [(a.path, a.mode) for a in rendered if a.directory] == [
            (PLACES.root_directory, 0o755)
        ]


def test_a_change_for_programs_has_four_words() -> None:
    change = plan.file_step(ORDINARY, Found(MISSING, None), UID, WROTE)
    assert change is not None
    assert change.as_dict().keys() == {"action", "target", "reason", "diff"}
