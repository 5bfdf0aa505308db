"""What the documentation tells a reader to type or to write: the fenced blocks of its pages."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from testing.support import ROOT

#: The pages whose commands the walk types.
WALKED = ("README.md", "docs/quick-start.md")


def pages() -> list[Path]:
    """Every page that readers see."""
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a page in one language."""
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.M | re.S)


def commands(page: Path) -> Iterator[str]:
    """The lines of a page's shell blocks, without their explanations."""
    for block in blocks(page, "sh"):
        for line in block.splitlines():
            if command := re.split(r"(?:^|  +)#", line)[0].strip():
                yield command


def block_with(page: str, language: str, words: str) -> str:
    """The one block of a page that holds these words."""
    (block,) = (text for text in blocks(ROOT / page, language) if words in text)
    return block
