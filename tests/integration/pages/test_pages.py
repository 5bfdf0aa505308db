"""The pages of `compare` and `trace` in a real browser: light and dark, narrow and wide, printed.

OPTICTL_TEST_SCREENSHOTS names a directory that keeps the pictures, to look at them.
"""

from __future__ import annotations

import html
import json
import os
import re
import shutil
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from optictl.requests import tracing
from optictl.requests.compare import page, questions, summary
from optictl.requests.compare.summary import Header, Prices, Record, Subject

MEASURE = Path(__file__).with_name("measure.js").read_text()
POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy"[^>]*>')
#: Chromium's numbers of the colour schemes, and pixels.
SCHEMES, WIDTHS = {"dark": 0, "light": 1}, (400, 1200)
STRATEGIES = ("moa", "bon", "plansearch", "self_consistency")
#: model -> of how many questions in a row one is wrong; of how many it is right.
QUALITY = {"": (2, 1), "moa": (20, 19), "bon": (3, 2), "plansearch": (7, 1)}


@pytest.fixture(scope="session")
def chromium() -> str:
    """Headless Chromium. `.ci/run` installs it."""
    found = shutil.which("chromium-headless-shell") or shutil.which("chromium")
    if found is None:
        pytest.fail("no Chromium: apt-get install chromium-headless-shell fonts-dejavu-core")
    return found


def compared() -> str:
    """A comparison of four strategies: one is better, one worse, two are within noise."""
    asked = questions.parse(
        "".join(
            json.dumps({"id": f"question-{n}", "prompt": f"{n}?", "expected": "x"}) + "\n"
            for n in range(26)
        )
    )
    base = Subject("jerry-xl", "", "jerry-xl")
    subjects = [base, *(Subject(f"{name}-jerry-xl", name, "jerry-xl") for name in STRATEGIES)]
    records = []
    for n, question in enumerate(asked):
        for s in subjects:
            period, right = QUALITY.get(s.strategy, (2, 1))
            calls = 1 + 3 * bool(s.strategy)
            effect = {"effect": "full"} if s.strategy else {}
            tokens = (calls * 120 + n, calls * 100 + 10 * len(s.strategy))
            is_right = n % period < right
            fields = (question.id, s.model, is_right, "", calls * (1 + n / 20), calls, *tokens)
            records.append(Record(*fields, **effect))  # type: ignore[arg-type]
    origin = page.Origin(
        "optictl compare --models moa-jerry-xl --prompts /home/jerry/questions/of-our-own.jsonl",
        (("models", "jerry-xl, " + ", ".join(STRATEGIES)), ("versions", "OptiLLM 0.3.12")),
        Header("0123456789abcdef", None, ("jerry-xl",)).line(),
    )
    rows = summary.rows(subjects, asked, records, Prices(0.5, 2))
    return page.render_page(
        rows, asked, records, content=False, priced=True, when="2026-11-30", origin=origin
    )


def call(purpose: str, start: float, seconds: float, **more: Any) -> dict[str, Any]:
    return {
        "purpose": purpose,
        "model": "jerry-xl",
        "start": start,
        "seconds": seconds,
        "status": 200,
        "error": "",
        "completions": 1,
        "prompt_tokens": 159,
        "completion_tokens": 220,
        "messages": [{"role": "user", "content": "Why is the sky blue?"}],
        "answers": ["Because of Rayleigh scattering."],
        **more,
    }


def traced() -> str:
    """A request with calls side by side, one that failed, and one without its part."""
    data = {
        "trace": "feedface" * 4,
        "strategy": "moa",
        "base_model": "jerry-xl",
        "seconds": 9.4,
        "status": 200,
        "code": "",
        "prompt_tokens": 800,
        "completion_tokens": 1200,
        "effect": "weak",
        "degraded": ["critique_empty"],
        "fixed": ["samples"],
        "messages": [{"role": "user", "content": "Why is the sky blue? " * 10}],
        "answers": ["Because of Rayleigh scattering."],
        "calls": [
            call("candidate", 0.02, 2.1),
            call("candidate", 0.02, 3.2),
            call("candidate", 0.03, 2.6, status=429, error="rate_limited"),
            call("critique", 3.4, 2.5, codes=["critique_empty"]),
            call("final", 6.1, 3.2),
        ],
    }
    versions = [("optictl", "0.1.0"), ("OptiLLM", "0.3.12"), ("release", "0.3.12-0123456789ab")]
    return tracing.page([("moa-jerry-xl", tracing.parse(data))], "2026-11-30", versions)


PAGES: dict[str, Callable[[], str]] = {"compare": compared, "trace": traced}


def browse(chromium: str, directory: Path, *options: str, text: str) -> str:
    """Open a page; the document as it is after its scripts."""
    (directory / "page.html").write_text(text, encoding="utf-8")
    # a sandbox of Chromium needs a user; the page is our own
    words = [chromium, "--no-sandbox", "--disable-gpu", "--hide-scrollbars", *options]
    done = subprocess.run(
        [*words, f"--user-data-dir={directory}/profile", (directory / "page.html").as_uri()],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def answered(document: str) -> dict[str, Any]:
    """What the script in the page said."""
    found = re.search(r'data-measured="([^"]*)"', document)
    assert found, "the script did not run"
    return dict(json.loads(html.unescape(found[1])))


def with_script(text: str, script: str) -> str:
    """A page with one more script. Its policy, which would forbid it, is left out."""
    without, count = POLICY.subn("", text)
    assert count == 1
    return without.replace("</body>", f"<script>{{{script}}}</script></body>")


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", PAGES)
def test_it_can_be_read(name: str, scheme: str, width: int, chromium: str, tmp_path: Path) -> None:
    picture = tmp_path / f"{name}-{scheme}-{width}.png"
    document = browse(
        chromium,
        tmp_path,
        f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}",
        f"--window-size={width},2400",
        f"--screenshot={picture}",
        "--dump-dom",
        text=with_script(PAGES[name](), MEASURE),
    )
    found = answered(document)
    assert (found["width"], found["scrolls"], found["dark"]) == (width, width, scheme == "dark")
    assert found["texts"] > 40
    # WCAG 2.2 AA: 4.5 for text, 3 for shapes
    assert (found["faint"], found["faintShapes"]) == ([], [])
    assert (found["outside"], found["small"]) == ([], [])
    assert struct.unpack(">II", picture.read_bytes()[16:24]) == (width, 2400)
    if kept := os.environ.get("OPTICTL_TEST_SCREENSHOTS"):
        shutil.copy(picture, kept)


def test_the_measure_finds_what_is_hard_to_read(chromium: str, tmp_path: Path) -> None:
    style = "p { color: #999 !important } svg text { font-size: 9px !important }"
    wide = '<p style="width: 600px">wide</p>'
    text = traced().replace("</style>", f"{style}</style>").replace("</body>", f"{wide}</body>")
    options = ["--blink-settings=preferredColorScheme=1", "--window-size=400,900", "--dump-dom"]
    found = answered(browse(chromium, tmp_path, *options, text=with_script(text, MEASURE)))
    assert found["scrolls"] > 400
    assert found["outside"] == ["wide"]
    assert {tag for tag, _, _ in found["faint"]} == {"P"}
    assert found["small"]


def test_a_click_sorts_the_table(chromium: str, tmp_path: Path) -> None:
    """The page's own script runs under the page's own policy."""
    click = """
    const table = document.querySelector("table.sortable");
    const first = () => [...table.tBodies[0].rows].map((row) => row.cells[0].textContent);
    const [model, right] = table.querySelectorAll("th button");
    const seen = {};
    for (const [name, button] of [["right", right], ["wrong", right], ["model", model]]) {
      button.click();
      seen[name] = first();
    }
    seen.sorted = model.parentNode.getAttribute("aria-sort");
    document.body.dataset.measured = JSON.stringify(seen);
    """
    document = browse(chromium, tmp_path, "--dump-dom", text=compared())
    assert "<button" in document
    found = answered(browse(chromium, tmp_path, "--dump-dom", text=with_script(compared(), click)))
    assert found["right"][0] == "plansearch-jerry-xl"
    assert found["wrong"][0] == "moa-jerry-xl"
    assert found["model"] == sorted(found["model"])
    assert found["sorted"] == "ascending"


@pytest.mark.parametrize("name", PAGES)
def test_it_can_be_printed(name: str, chromium: str, tmp_path: Path) -> None:
    printed = tmp_path / "page.pdf"
    browse(chromium, tmp_path, f"--print-to-pdf={printed}", text=PAGES[name]())
    pages = len(re.findall(rb"/Type\s*/Page\b", printed.read_bytes()))
    assert 1 <= pages <= 4
