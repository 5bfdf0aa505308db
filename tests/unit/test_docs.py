"""The documentation is current, its links lead somewhere, and its commands exist."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command

import optictl
from optictl.cli import app
from optictl.deployment import paths
from optictl.guard import metrics
from optictl.host.uv_settings import parse_toml
from optictl.requests.compare.run import BUILT_IN
from optictl.results import Result
from scripts import commands_page, config_page, docs, man_pages
from testing import documented
from testing.faults.rows import FAULTS
from testing.support import ROOT

REMEDY = "run: python -m scripts.docs"
OPTICTL = get_command(app)
PAGES = [pytest.param(p, id=str(p.relative_to(ROOT))) for p in documented.pages()]


@pytest.mark.parametrize(
    ("path", "page"), [pytest.param(*item, id=item[0].name) for item in docs.PAGES.items()]
)
def test_a_generated_page_is_current(path: Path, page: Callable[[], str]) -> None:
    assert path.read_text(encoding="utf-8") == page(), REMEDY


def test_the_generator_sees_missing_markers(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("<!-- begin: a -->\nold\n<!-- end: a -->\n")
    assert docs.filled(page, {"a": "new"}) == "<!-- begin: a -->\nnew\n<!-- end: a -->\n"
    with pytest.raises(ValueError, match="not one pair of markers for b"):
        docs.filled(page, {"b": "new"})


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 120


# links


def links(page: Path) -> Iterator[str]:
    """The relative links and pictures of a page, without code."""
    text = re.sub(r"```.*?```|`[^`\n]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" not in target:
            yield target


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as the site and GitHub make them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", h.lower()).strip().replace(" ", "-") for h in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_a_file_and_a_heading(page: Path) -> None:
    broken = []
    for target in links(page):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.is_file() or (anchor and anchor not in anchors(file)):
            broken.append(target)
    assert broken == []


def test_the_navigation_has_every_page_once() -> None:
    def names(entry: Any) -> Iterator[str]:
        if isinstance(entry, str):
            yield entry
        else:
            for below in entry.values() if isinstance(entry, dict) else entry:
                yield from names(below)

    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    there = [str(p.relative_to(ROOT / "docs")) for p in (ROOT / "docs").rglob("*.md")]
    assert sorted(names(site["nav"])) == sorted(there)


def test_ci_builds_the_site() -> None:
    assert "mkdocs build --strict" in (ROOT / ".ci/run").read_text(encoding="utf-8")


# commands


def problems(words: list[str]) -> Iterator[str]:
    """What is wrong with the words behind `optictl`: an unknown command or option."""
    command: Any = OPTICTL
    for word in words:
        known = [o for p in command.params for o in (*p.opts, *p.secondary_opts)]
        if word in getattr(command, "commands", {}):
            command = command.commands[word]
        elif getattr(command, "commands", None) and not word.startswith("-"):
            yield f"no command {word}"
            return
        elif word.startswith("-") and word.partition("=")[0] not in [*known, "--help"]:
            yield f"{command.name}: no option {word}"


def typed(line: str) -> list[str] | None:
    """The words behind `optictl`, or None if the line runs something else."""
    found = re.search(r"(?:^|sudo |run |\$\()(?:\S*/)?optictl ([^|;&)>]+)", line)
    return found[1].split() if found else None


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_exist(page: Path) -> None:
    lines = [words for line in documented.commands(page) if (words := typed(line)) is not None]
    assert [problem for words in lines for problem in problems(words)] == []


def test_the_search_for_commands_sees_what_is_missing() -> None:
    assert typed("sudo /usr/local/bin/optictl check --attack") == ["check", "--attack"]
    assert list(problems(["check", "--attacks"])) == ["check: no option --attacks"]
    assert list(problems(["fleet", "aply"])) == ["no command aply"]
    count = sum(typed(line) is not None for p in PAGES for line in documented.commands(p.values[0]))
    assert count > 50


def test_the_first_day_of_the_readme_is_in_the_quick_start() -> None:
    readme, quick_start = (
        set(documented.commands(ROOT / page)) for page in ("README.md", "docs/quick-start.md")
    )
    (tests,) = readme - quick_start
    assert tests.endswith("pytest -n 3")
    assert len(readme) == 12


# reference


def test_every_command_and_key_is_described() -> None:
    commands = commands_page.commands()
    assert len(commands) > 30
    assert [c.name for c in commands if not c.help or not (c.example or not c.name)] == []
    options = [(c.name, p.names) for c in commands for p in c.parameters if not p.help]
    assert options == []
    assert all(key.text for section in config_page.sections() for key in section.keys)


def test_the_http_page_has_every_header_and_error_code() -> None:
    page = (ROOT / "docs/reference/http-api.md").read_text(encoding="utf-8")
    sources = [p.read_text(encoding="utf-8") for p in (ROOT / "optictl/guard").glob("*.py")]
    headers = {h for text in sources for h in re.findall(r'"(x-optillm-[a-z-]+)"', text)}
    assert {"x-optillm-guard", "x-optillm-trace", "x-optillm-dropped"} < headers
    assert sorted(h for h in headers if f"| `{h}` |" not in page and f"`{h}`," not in page) == []
    listed = set(re.findall(r"^\| \d{3} \| `(\w+)` \|", page, re.M))
    assert listed == {*metrics._ERRORS, *metrics._REFUSALS}


def test_the_exit_codes_are_listed() -> None:
    codes = [code for code, _ in man_pages.rows("reference/exit-codes.md")]
    assert codes == ["0", "1", "2", "4", "78", "130"]


def test_the_json_page_has_every_field_of_a_result() -> None:
    page = (ROOT / "docs/reference/json.md").read_text(encoding="utf-8")
    table = page.partition("## A result\n")[2].partition("\n## ")[0]
    listed = {
        name for cell in re.findall(r"^\| (`.+?) \|", table, re.M) for name in cell.split(", ")
    }
    whole = Result("a", "b", "fail", data={}, fault="c", root_cause="a", applies=False).as_dict()
    assert listed == {f"`{name}`" for name in whole}


def test_the_files_are_those_of_a_deployment() -> None:
    places = paths.system()
    values = {str(v) for name in dir(places) if isinstance(v := getattr(places, name), Path)}
    listed = [path for path, _ in man_pages.rows("reference/files.md")]
    assert len(listed) > 9
    assert [path for path in listed if path not in values] == []


@pytest.mark.parametrize(
    ("page", "words"),
    [
        ("explanation/why.md", f"lists {len(FAULTS)} of them"),
        ("guides/operate.md", f"shows {len(FAULTS)} faults"),
        ("guides/strategies.md", f"asks {len(BUILT_IN.read_text().splitlines())} built-in"),
    ],
)
def test_the_figures_of_a_page_are_those_of_the_code(page: str, words: str) -> None:
    assert words in (ROOT / "docs" / page).read_text(encoding="utf-8")


# releases and man pages


def test_the_changelog_has_this_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## \[([^]]+)\]( - \d{4}-\d\d-\d\d)?$", changes, re.M)
    assert headings[0] == ("Unreleased", "")
    assert headings[1][0] == optictl.__version__
    assert all(day for _, day in headings[1:])


MANUALS = [man_pages.COMMAND, man_pages.FILE]


@pytest.mark.parametrize("manual", MANUALS, ids=lambda path: path.name)
def test_a_man_page_has_its_parts(manual: Path) -> None:
    text = manual.read_text(encoding="utf-8")
    headings = re.findall(r"^\.SH (.+)$", text, re.M)
    assert text.startswith(".TH OPTICTL")
    assert headings[0] == "NAME"
    assert {"DESCRIPTION", "FILES", "SEE ALSO"} < set(headings)
    known = r"\.(TH|SH|SS|TP|PP|B|BI|BR|EX|EE)( |$)"
    assert [x for x in text.splitlines() if x.startswith(".") and not re.match(known, x)] == []
    assert [x for x in text.splitlines() if x.startswith("'") or not x.strip()] == []


@pytest.mark.parametrize("manual", MANUALS, ids=lambda path: path.name)
def test_the_wheel_installs_a_man_page(manual: Path) -> None:
    project = parse_toml((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    section = manual.suffix.removeprefix(".")
    place = f"share/man/man{section}/{manual.name}"
    assert shared[str(manual.relative_to(ROOT))] == place
