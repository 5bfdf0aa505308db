"""Tables in which no word is split or cut, however narrow the terminal is."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console, RenderableType
    from rich.text import Text

#: Between two columns.
_GAP = 2


@dataclass(frozen=True)
class _Row:
    cells: list[Text]
    style: str


class Table:
    """Rows below titles, without lines between them. Cells and titles are markup.

    Where the columns do not fit, cells are broken at their spaces; where that is not enough, each
    row becomes a block: its first `heads` cells, and its other cells below, each behind its title.
    The columns of `numbers` stand to the right.
    """

    def __init__(self, *titles: str, numbers: Sequence[str] = (), heads: int = 1) -> None:
        from rich.text import Text

        self._titles = [Text.from_markup(title) for title in titles]
        self._right = [title in numbers for title in titles]
        self._heads = heads
        self._rows: list[_Row] = []

    def add(self, *cells: str, style: str = "") -> None:
        """One row more."""
        from rich.text import Text

        self._rows.append(_Row([Text.from_markup(cell) for cell in cells], style))

    def print(self, console: Console) -> None:
        """Print the table as it fits this console."""
        console.print(self.fitted(console.width), soft_wrap=True)

    def fitted(self, width: int) -> RenderableType:
        """The table within this width."""
        from rich.console import Group

        widths = self._widths(width)
        return self._columns(widths) if widths else Group(*self._blocks(width))

    def fits(self, width: int) -> bool:
        """Whether no cell has to be broken there."""
        wide = [max(cell.cell_len for cell in column) for column in self._cells()]
        return sum(wide) + _GAP * (len(wide) - 1) <= width

    def lines(self, width: int) -> int:
        """How many lines it takes there."""
        from rich.console import Console

        console = Console(width=width, color_system=None)
        return len(console.render_lines(self.fitted(width), pad=False))

    def _widths(self, width: int) -> list[int]:
        """The width of each column; none where a word would have to be split."""
        columns = self._cells()
        whole = [max(cell.cell_len for cell in column) for column in columns]
        least = [max(map(_longest_word, column)) for column in columns]
        room = width - _GAP * (len(columns) - 1) - sum(least)
        if room < 0:
            return []
        for place in sorted(range(len(columns)), key=lambda at: whole[at] - least[at]):
            more = min(room, whole[place] - least[place])
            least[place] += more
            room -= more
        return least

    def _cells(self) -> list[list[Text]]:
        """The title and the cells of each column."""
        return [
            [title, *(row.cells[place] for row in self._rows)]
            for place, title in enumerate(self._titles)
        ]

    def _columns(self, widths: Sequence[int]) -> RenderableType:
        from rich import table

        has_titles = any(title.plain for title in self._titles)
        made = table.Table(
            box=None, pad_edge=False, padding=(0, _GAP, 0, 0), show_header=has_titles
        )
        for title, right, width in zip(self._titles, self._right, widths, strict=True):
            made.add_column(title, justify="right" if right else "left", width=width)
        for row in self._rows:
            made.add_row(*row.cells, style=row.style)
        return made

    def _blocks(self, width: int) -> Iterator[Text]:
        from rich.text import Text

        head = Text(" " * _GAP).join(title for title in self._titles[: self._heads] if title.plain)
        if head.plain:
            head.stylize("bold")
            yield head
        for block in self._each_block(width):
            yield from block

    def _each_block(self, width: int) -> Iterator[list[Text]]:
        """The lines of each row, one below the other."""
        from rich.text import Text

        for row in self._rows:
            heads = [cell for cell in row.cells[: self._heads] if cell.plain]
            pairs = [
                Text(" ").join(filter(len, (Text(title.plain, "dim"), cell)))
                for title, cell in zip(self._titles, row.cells, strict=True)
                if cell.plain
            ]
            head = Text(" " * _GAP).join(heads)
            lines = [head, *_filled(pairs[len(heads) :], width - _GAP)]
            for line in lines:
                line.stylize_before(row.style)
            yield lines


def broken(text: Text, width: int) -> list[Text]:
    """The lines of a text. They end at spaces: a word that is longer than a line stays whole."""
    from rich.cells import cell_len

    ends, begin = list[int](), None
    for word in re.finditer(r"\S+", text.plain):
        if begin is None:
            begin = 0
        elif cell_len(text.plain[begin : word.end()]) > width:
            begin = word.start()
            ends.append(begin)
    lines = list(text.divide(ends))
    for line in lines:
        line.rstrip()
    return lines


def _longest_word(cell: Text) -> int:
    from rich.cells import cell_len

    return max(map(cell_len, cell.plain.split()), default=0)


def _filled(pairs: Sequence[Text], width: int) -> Iterator[Text]:
    """Lines of pairs. A pair that needs more than a line is broken at its spaces."""
    from rich.text import Text

    line = Text()
    for pair in pairs:
        if line and line.cell_len + _GAP + pair.cell_len > width:
            yield from _indented(line, width)
            line = Text()
        line = line + Text(" " * _GAP if line else "") + pair
    if line:
        yield from _indented(line, width)


def _indented(text: Text, width: int) -> Iterator[Text]:
    from rich.text import Text

    return (Text(" " * _GAP) + line for line in broken(text, width))
