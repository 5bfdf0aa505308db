"""Every screen at three widths and in a pipe: no identifier and no path is split or cut."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer
from rich.console import Console
from typer.testing import CliRunner

from optictl.cli import app
from optictl.deployment import paths
from optictl.deployment.artefacts import Artefact
from optictl.deployment.config import Config
from optictl.fleet import playbook_events
from optictl.host.network import Response
from optictl.observe.status import Status
from optictl.observe.top.model import InFlight, Rates, Screen
from optictl.operations.canary import Proof
from optictl.operations.installation import Installation
from optictl.operations.resolve import Resolution
from optictl.operations.steps import ReplaceFile
from optictl.output import observations, plans
from optictl.output.check_results import Results
from optictl.output.console import Report, Terminal
from optictl.output.hosts import Hosts
from optictl.output.release_tables import Comparison, NewLock, Releases, Switched
from optictl.output.request_results import Compared, Smoked, Traced, as_they_end
from optictl.output.tables import Table
from optictl.releases.store import StoredRelease
from optictl.releases.verification import Verification
from optictl.requests.compare.summary import Beside, Row, Subject
from optictl.requests.smoke import Smoked as OneSmoked
from optictl.requests.tracing import Call, Trace
from optictl.results import Result
from optictl.takeover import table
from tests.unit.test_takeover_proposal import GOOD

ESCAPE = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]")
WIDTHS = [60, 80, 120, 0]
RELEASE = "0.3.12-0123456789ab"
MODEL = "self_consistency-ollama/qwen2.5-coder-32b-instruct"
PATH = "/home/jerry/services/optillm/etc/optillm-proxy/proxy_config.yaml"
UNIT = "optillm-proxy-for-the-second-floor.service"


def lines(width: int, show: Callable[[Terminal], Any]) -> list[str]:
    """What is shown on a terminal of that width; 0 is a pipe with NO_COLOR."""
    shown, terminal = io.StringIO(), Terminal()
    terminal._out = terminal._err = Console(
        file=shown,
        width=width or 1000,
        height=40,
        force_terminal=width > 0,
        no_color=not width,
        highlight=False,
        soft_wrap=not width,
    )
    show(terminal)
    if not width:
        assert "\x1b" not in shown.getvalue()
    return ESCAPE.sub("", shown.getvalue()).splitlines()


def split(shown: list[str], *wanted: str) -> list[str]:
    """The identifiers that are on no line as a whole."""
    return [word for word in wanted if not any(word in line for line in shown)]


def too_long(shown: list[str], width: int) -> list[str]:
    """Lines that do not fit although they could be broken. A command to copy is not broken."""
    return [
        line
        for line in map(str.rstrip, shown)
        if width
        and len(line) > width
        # a long word with a title before it needs more than a line
        and len(line) - max(map(len, line.split())) > 12
        and not re.match(r"\s*(fix|next|continue:|more:|[+@-])", line.lower())
    ]


def smoke(model: str, seconds: float) -> Result:
    data = {"latency_ms": 1000 * seconds, "upstream_calls": 4, "tokens": {"total": 12_345}}
    return Result(model, model, "pass", found="it ran", data=data)


STORED = [
    StoredRelease(
        RELEASE,
        "0.3.12",
        "proxy",
        "0123456789ab",
        "2026-11-01T10:00:00",
        n,
        state,
        verification=Verification("conformant", "the conformance run passed"),
    )
    for n, state in ((10**9, "active"), (10**8, "half-built"))
]
TRACE = Trace(
    "feedface",
    "plansearch",
    "jerry-xl",
    4.0,
    502,
    "upstream_rate_limited",
    20,
    10,
    tuple(
        Call(
            "derived_observations_of_the_third_candidate",
            "jerry-xl",
            at,
            1.5,
            status,
            "",
            1,
            5,
            2,
            codes,
        )
        for at, status, codes in ((0.0, 200, ("observations_empty",)), (2.5, 429, ()))
    ),
    "none",
    ("observations_empty", "step_failed"),
    ("samples", "budgets"),
)
RATES = [
    Rates(name, 3, 1234.5, 12.5, 123456.7, 1_234_567, 1600, 1599)
    for name in ("self_consistency", "plansearch", "mixture_of_agents_with_a_long_name")
]
SCREEN = Screen(
    state="active (running)",
    ready=True,
    problem=f"cannot read {PATH}: permission denied, so that nothing is known about the service",
    uptime=86_399.0,
    restarts=12,
    memory=2.0**30,
    workers=2,
    workers_wanted=4,
    max_in_flight=64,
    queued=3,
    total=Rates("total", 9, 1234.5, 12.5, 123456.7, 1_234_567, 4800, 4797),
    rates=RATES,
    refused=1.5,
    upstream_failed=2.5,
    p50=1.25,
    p95=12.5,
    in_flight=[InFlight("feedface" * 4, MODEL, 3_700.0, 12, 3) for _ in range(3)],
    seconds=60.0,
)
STATUS = Status(
    state="active (running)",
    since="2026-11-01 10:00:00",
    doing="serving",
    release=RELEASE,
    restarts=1,
    memory=2**30,
    main_pid=4711,
    drop_ins=[f"/etc/systemd/system/{UNIT}.d/{n}-override.conf" for n in (10, 20, 30)],
    tiers={"health.alive": "pass", "health.locked": "fail", "health.connected": "skip"},
    problem=f"health.locked: {PATH} names another provider than {PATH}.before, and nothing else",
    next=f"sudo optictl install --config {PATH}",
    verification=Verification("conformant", "the conformance run passed"),
)
FAILED = Result(
    "fleet.host",
    "A title",
    "fail",
    found=f"{UNIT} failed: it cannot read {PATH}, and neither can any other unit of this host",
    remedy=f"optictl check --config {PATH}",
    data={"diff": f"--- {PATH}\n+++ {PATH}\n-old\n+new\n"},
)


def row(strategy: str) -> Row:
    beside = Beside(12, 3, 1, 0.04, (0.1, 0.5), "better") if strategy else None
    subject = Subject(f"{strategy}-{MODEL}".strip("-"), strategy, MODEL)
    counts = (10, 12, 1, f"cannot reach {PATH}", 3, (0.6, 1.0), 123, 123_456, 23_456)
    row = Row(subject, *counts, p50=1.25, p95=112.5, cost=1.2345, beside=beside)
    judged = {"judged": 26, "effective": 18, "lost": {"ratings_unreadable": 8}}
    return replace(row, beside_samples=beside, **judged) if strategy else row  # type: ignore[arg-type]


def reports() -> Iterator[tuple[str, Report, list[str]]]:
    """name, what a command did, and the identifiers and paths in it."""
    yield "releases", Releases(STORED), [RELEASE, "0123456789ab", "half-built"]
    yield "status", observations.StatusReport(STATUS), [RELEASE, PATH, *STATUS.drop_ins]
    fleet = Hosts([FAILED], playbook_events.headline([FAILED]), 1, f"optictl fleet apply -i {PATH}")
    yield "fleet", fleet, [FAILED.id, UNIT, PATH, FAILED.remedy, f"--- {PATH}", fleet.again]
    proof = Proof([smoke(f"{n}-{MODEL}", 12.5) for n in "ab"], [smoke(f"a-{MODEL}", 1.5)])
    proof.new.append(replace(smoke(f"c-{MODEL}", 2.5), status="fail", found=f"{PATH} is empty"))
    fix = f"optictl install --config {PATH}"
    proof.new.append(replace(smoke(f"d-{MODEL}", 2.5), status="warn", remedy=fix))
    names = [f"{letter}-{MODEL}" for letter in "abcd"] + ["12345", "12.50", PATH, fix]
    yield "upgrade, proven", Comparison(proof), names
    switched = Switched(RELEASE, True, True, next=f"To go back: optictl rollback --config {PATH}")
    yield "upgrade, done", switched, [RELEASE, switched.next]
    resolution = Resolution(
        Path(PATH), "", ["openai 3.54.0 -> 3.60.1"], {f"optillm.{MODEL}": f"-{PATH}\n"}, []
    )
    yield "upgrade --resolve", NewLock(resolution), [f"optillm.{MODEL}", "openai 3.54.0 -> 3.60.1"]
    baseline = replace(row(""), subject=Subject(MODEL, "", MODEL, 5))
    rows = [row(""), baseline, row("plansearch"), row("moa")]
    compared = Compared(rows, PATH, 10**6, f"optictl x {PATH}", 2 * 10**6, 130)
    names = [MODEL, "plansearch", "1.2345", "112.5", f"moa-{MODEL}", f"optictl x {PATH}"]
    names += ["ratings_unreadable", "130 samples", f"{MODEL} x5"]
    yield "compare", compared, names
    names = [MODEL, TRACE.calls[0].purpose, "upstream_rate_limited", "429"]
    names += ["observations_empty", "step_failed:", "fixed: samples"]
    yield "trace", Traced(MODEL, TRACE, "x"), names
    yield "check", Results([FAILED]), [FAILED.id, UNIT, PATH, FAILED.remedy]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    ("report", "wanted"), [pytest.param(report, w, id=name) for name, report, w in reports()]
)
def test_a_report_splits_nothing(report: Report, wanted: list[str], width: int) -> None:
    shown = lines(width, lambda terminal: terminal.finish(report))
    assert split(shown, *wanted) == []
    assert "…" not in "".join(shown)
    assert too_long([line for line in shown if PATH not in line], width) == []


@pytest.mark.parametrize("width", WIDTHS)
def test_a_plan_with_a_service_to_take_over_splits_nothing(width: int) -> None:
    place = paths.system(Path("/home/jerry/services/optillm"))
    rows = table.rows(GOOD, Config(), place, None, dynamic=True)
    text = f"[Service]\nExecStart={PATH} --config={PATH} --and={PATH}\n"
    diff = "".join(f"+{line}\n" for line in text.splitlines())
    step = ReplaceFile(
        reason="it differs",
        diff=f"--- {PATH}\n+++ {PATH}\n@@ -0,0 +1,2 @@\n{diff}",
        artefact=Artefact(Path(PATH), text, 0o644),
    )
    installation = Installation(
        Config(), place, None, [step], problems=[FAILED], hand_made=GOOD, table=rows
    )
    shown = lines(width, lambda terminal: terminal.finish(plans.Plan(installation)))
    cells = {word for r in rows for cell in (r.now, r.becomes) for word in cell.split()}
    assert len([cell for cell in cells if "/" in cell]) > 3
    assert split(shown, *cells, FAILED.remedy, *diff.splitlines()) == []
    assert too_long([line for line in shown if PATH not in line], width) == []


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("problem", [SCREEN.problem, ""])
def test_top_splits_nothing(width: int, problem: str) -> None:
    screen = replace(SCREEN, problem=problem)
    shown = lines(
        width,
        lambda t: t.out.print(observations._top_screen(screen, UNIT, 2, False, width, 40)),
    )
    names = [rate.strategy for rate in RATES]
    wanted = [UNIT, MODEL, "feedface", *names, "1234567", "1024 MiB", "q quits", "1599/1600"]
    # a path that is longer than a line can be nowhere as a whole
    assert split(shown, *wanted, *([PATH] if problem and width > len(PATH) else [])) == []
    assert len(shown) <= 40
    assert max(map(len, shown)) <= width
    assert "…" not in "".join(shown)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize(
    "arguments",
    [
        ["check", "--only", MODEL],
        ["smoke", "--key-file", PATH, "moa-jerry-xl"],
        ["install", "--wheelhouse", PATH],
        ["compare", "--save", f"{PATH}/page.html"],
        ["fleet", "status", "-i", PATH],
    ],
    ids=" ".join,
)
def test_a_wrong_command_line_splits_nothing(
    arguments: list[str], width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optictl.cli import ending
    from optictl.output import console

    monkeypatch.setattr("sys.argv", ["optictl", *arguments])
    shown = io.StringIO()
    made = Console(file=shown, width=width or 1000, force_terminal=width > 0, stderr=True)
    monkeypatch.setattr(console, "_open", lambda stderr: made)
    assert ending.run(app, arguments) in (2, 1)
    found = [
        line
        for line in ESCAPE.sub("", shown.getvalue()).splitlines()
        if line and not line.endswith(" working ...")
    ]
    assert found[0].startswith("error  ")
    assert split(found, PATH if MODEL not in arguments else MODEL) == []
    assert too_long([line for line in found if PATH not in line], width) == []


def helps(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield words, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from helps(inner, (*words, name))


WORD = re.compile(r"[^\s\[\]]+")


@pytest.mark.parametrize("width", [60, 80, 120])
def test_no_help_page_splits_a_word(width: int) -> None:
    for words, command in helps(typer.main.get_command(app)):
        page = CliRunner().invoke(app, [*words, "--help"], env={"COLUMNS": str(width)}).stdout
        shown = {word.strip(",.:;") for word in WORD.findall(page)}
        inner = getattr(command, "commands", {})
        names = [name for name, each in inner.items() if not each.hidden]
        texts = [command.help or "", command.epilog or "", *names]
        for parameter in command.params:
            if not getattr(parameter, "hidden", False):
                options = [word for word in parameter.opts if word.startswith("-")]
                texts += [parameter.help or "", parameter.envvar or "", *options]
        wanted = {word.strip(",.:;") for text in texts for word in WORD.findall(text)}
        assert {word for word in wanted if word not in shown} == set(), words
        assert max(map(len, page.splitlines())) <= width, words


class TestTable:
    """What every table does where it is too wide."""

    @staticmethod
    def shown(width: int) -> list[str]:
        made = Table("name", "said", "n", numbers=["n"])
        made.add("an-identifier", "some words that can be broken", "1234")
        made.add("other", "few", "5")
        return [line.rstrip() for line in lines(width, lambda t: made.print(t.out))]

    def test_with_room_a_row_is_a_line(self) -> None:
        assert self.shown(80) == [
            "name           said                              n",
            "an-identifier  some words that can be broken  1234",
            "other          few                               5",
        ]

    def test_with_less_cells_are_broken_at_spaces(self) -> None:
        assert self.shown(40) == [
            "name           said                    n",
            "an-identifier  some words that can  1234",
            "               be broken",
            "other          few                     5",
        ]

    def test_with_least_a_row_is_a_block(self) -> None:
        assert self.shown(24) == [
            "name",
            "an-identifier",
            "  said some words that",
            "  can be broken",
            "  n 1234",
            "other",
            "  said few  n 5",
        ]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_model_is_shown_when_it_ends_and_not_again(width: int) -> None:
    results = [smoke(MODEL, 1.5), replace(smoke("moa-jerry-xl", 2.5), status="warn", cause=PATH)]
    seen = []

    def show(terminal: Terminal) -> None:
        listed = as_they_end(terminal, [r.id for r in results])
        for result in results:
            listed(OneSmoked(result, Response(200)))
            seen.append(terminal.out.file.getvalue())  # type: ignore[attr-defined]
        terminal.finish(Smoked(results, is_listed=True))

    shown = lines(width, show)
    assert MODEL in seen[0]
    assert "moa-jerry-xl" not in seen[0]
    assert "moa-jerry-xl" in seen[1]
    assert split(shown, MODEL, "moa-jerry-xl", PATH) == []
    assert sum(line.startswith(("pass  ", "warn  ")) for line in shown) == 2
    assert shown[-1] == "(1 warn, 1 pass)"


def test_json_has_one_envelope_however_models_end(capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal("smoke", "json")
    results = [smoke("moa-jerry-xl", 1.5), smoke("bon-jerry-xl", 1.5)]
    listed = as_they_end(terminal, [r.id for r in results])
    for result in results:
        listed(OneSmoked(result, Response(200)))
    terminal.finish(Smoked(results, is_listed=True))
    envelope = json.loads(capsys.readouterr().out)
    assert [r["id"] for r in envelope["results"]] == ["moa-jerry-xl", "bon-jerry-xl"]


@pytest.mark.parametrize("width", WIDTHS)
def test_a_failed_check_says_each_thing_once(width: int) -> None:
    failed = Result(
        "health.locked",
        "The proxy answers only with its key",
        "fail",
        expected="401 without a key",
        found="200 without a key",
        cause="the key was removed from the unit",
        remedy="optictl install --force",
        fault="Any local user can use the proxy",
        root_cause="health.locked",
    )
    explained = Result(
        "health.connected", "It lists its models", "fail", found="no list", root_cause=failed.id
    )
    fine = Result("health.alive", "It answers", "pass", found="it answers")
    shown = " ".join(
        " ".join(lines(width, lambda t: t.finish(Results([failed, explained, fine])))).split()
    )
    said = (failed.title, failed.expected, failed.found, failed.cause, failed.remedy, failed.fault)
    assert {text: shown.count(text) for text in said} == dict.fromkeys(said, 1)
    assert shown.count(f"fix {failed.id}, which explains it") == 1
