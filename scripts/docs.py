"""Write every generated page: `python -m scripts.docs`.

Tests compare each of them with what its generator makes. A page that is generated in part has
the generated part between two markers: `<!-- begin: NAME -->` and `<!-- end: NAME -->`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from scripts import (
    alert_rules,
    checks_page,
    commands_page,
    config_page,
    effect_codes_page,
    error_codes_page,
    faults_page,
    http_api_page,
    man_pages,
    metrics_page,
    performance_page,
    requests_page,
    rooms_page,
)
from testing.faults.rows import FAULTS
from testing.systems import matrix


def filled(page: Path, parts: Mapping[str, str]) -> str:
    """A page with the generated parts between their markers.

    Raises:
        ValueError: the page does not have the markers of a part exactly once.
    """
    text = page.read_text(encoding="utf-8")
    for name, part in parts.items():
        begin, end = f"<!-- begin: {name} -->", f"<!-- end: {name} -->"
        pattern = f"{re.escape(begin)}\n.*?{re.escape(end)}"
        if len(re.findall(pattern, text, re.S)) != 1:
            raise ValueError(f"{page}: not one pair of markers for {name}")
        block = f"{begin}\n{part}\n{end}"
        text = re.sub(pattern, lambda _, block=block: block, text, flags=re.S)  # type: ignore[misc]
    return text


#: File -> its whole text.
PAGES: dict[Path, Callable[[], str]] = {
    alert_rules.PAGE: alert_rules.page,
    checks_page.PAGE: checks_page.page,
    commands_page.PAGE: commands_page.page,
    config_page.PAGE: config_page.page,
    config_page.SCHEMA: config_page.schema,
    effect_codes_page.PAGE: effect_codes_page.page,
    error_codes_page.PAGE: error_codes_page.page,
    faults_page.PAGE: lambda: faults_page.page(FAULTS, faults_page.seen()),
    http_api_page.PAGE: lambda: filled(http_api_page.PAGE, {"statuses": http_api_page.statuses()}),
    http_api_page.DESCRIPTION: http_api_page.description,
    matrix.PAGE: lambda: matrix.page(matrix.read()),
    metrics_page.PAGE: lambda: filled(metrics_page.PAGE, metrics_page.tables()),
    performance_page.PAGE: lambda: filled(performance_page.PAGE, performance_page.parts()),
    requests_page.PAGE: lambda: filled(requests_page.PAGE, requests_page.tables()),
    rooms_page.PAGE: lambda: filled(rooms_page.PAGE, {"rooms": rooms_page.picture()}),
    man_pages.COMMAND: man_pages.command_page,
    man_pages.FILE: man_pages.file_page,
}


def main() -> None:
    """Write the pages, and name those that changed."""
    for path, page in PAGES.items():
        text = page()
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            print(f"wrote {path}")


if __name__ == "__main__":
    main()
