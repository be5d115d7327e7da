"""Tables of rows in blocks, with footnotes, as Markdown and as LaTeX."""

import re
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import NamedTuple

LATEX = {
    **{c: f"\\{c}" for c in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"},
    **{"[": "{[}", "*": "{*}", '"': "''", "`": r"\`{}"},
}
DOCUMENT = r"""\documentclass{article}
\usepackage{booktabs,graphicx}
\usepackage[a4paper,landscape,margin=15mm]{geometry}
\pagestyle{empty}
\setlength{\parindent}{0pt}
\begin{document}
%s

\footnotesize\raggedright
%s
\end{document}
"""
TABULAR = r"""\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%%
\begin{tabular}{%s}
\toprule
%s
\bottomrule
\end{tabular}}
\par\bigskip"""


class Cell(NamedTuple):
    """A text, the marks of its footnotes, and how it is set: "", "bold" or "italic"."""

    text: str
    marks: Sequence[str] = ()
    style: str = ""


Row = Sequence[Cell]  # the first is its label


class Block(NamedTuple):
    """Rows under a title, and those that are set apart below them."""

    title: str
    rows: Sequence[Row]
    apart: Sequence[Row] = ()


class Grid(NamedTuple):
    """Blocks under one head; the first ``texts`` columns are not numbers."""

    head: Row  # without the corner
    blocks: Sequence[Block]
    texts: int = 1


def transposed(grid: Grid) -> list[Grid]:
    """A grid a block, whose rows are columns.

    >>> block = Block("kNN", [[Cell("x"), Cell("1"), Cell("2")]])
    >>> print(markdown(transposed(Grid([Cell("A"), Cell("B")], [block]))[0]))
    | **kNN** |   x |
    | ------- | --: |
    | A       |   1 |
    | B       |   2 |
    """
    grids = []
    for title, rows, apart in grid.blocks:
        head, *lines = zip(*rows, *apart, strict=True)
        turned = [[name, *line] for name, line in zip(grid.head, lines, strict=True)]
        grids.append(Grid(head, [Block(title, turned)]))
    return grids


def markdown(grid: Grid) -> str:
    """As a Markdown table, padded so that it can be read as it is."""
    blocks = grid.blocks
    lines: list[Row] = [[_corner(blocks), *grid.head]]
    for title, rows, apart in blocks:
        lines += [[Cell(title, style="bold")]] if len(blocks) > 1 else []
        lines += [*rows, *apart]
    texts = [[_markdown(cell) for cell in line] for line in lines]
    widths = [max(3, *map(len, column)) for column in zip_longest(*texts, fillvalue="")]
    rule = [f"{'-' * (w - 1)}{'-' if i < grid.texts else ':'}" for i, w in enumerate(widths)]
    padded = [
        [f"{text:{'<' if i < grid.texts else '>'}{w}}" for i, (text, w) in enumerate(row)]
        for row in (zip_longest(line, widths, fillvalue="") for line in texts)
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in (padded[0], rule, *padded[1:]))


def latex(grids: Sequence[Grid], footnotes: Mapping[str, str], notes: Sequence[str]) -> str:
    """As a document that compiles alone: a booktabs tabular a grid, the notes under them.

    Args:
        footnotes: text to mark.
    """
    marked = [f"\\textsuperscript{{{mark}}} {latex_text(text)}" for text, mark in footnotes.items()]
    below = [f"{line}\\par" for line in (*marked, *map(latex_text, notes))]
    return DOCUMENT % ("\n\n".join(map(_tabular, grids)), "\n".join(below))


def latex_text(text: str) -> str:
    """Any one line, so that LaTeX prints it as it is.

    >>> print(latex_text("50 % of_a & b"))
    50 \\% of\\_a \\& b
    """
    text = "".join(LATEX.get(c, c) for c in text)
    return re.sub("-(?=-)", "-{}", text)  # two would be a dash


def markdown_text(text: str) -> str:
    """Any one line, so that Markdown shows it as it is, in a table too.

    >>> print(markdown_text("a|b*c run_1"))
    a\\|b\\*c run_1
    """
    # An underscore within a word is none of emphasis.
    return re.sub(r"[\\|*`<\[]|(?<![^\W_])_|_(?![^\W_])", r"\\\g<0>", text)


def _corner(blocks: Sequence[Block]) -> Cell:
    return Cell(blocks[0].title, style="bold") if len(blocks) == 1 else Cell("")


def _markdown(cell: Cell) -> str:
    stars = {"bold": "**", "italic": "*"}.get(cell.style, "") if cell.text else ""
    marks = f" [{', '.join(cell.marks)}]" if cell.marks else ""
    return f"{stars}{markdown_text(cell.text)}{stars}{marks}"


def _tabular(grid: Grid) -> str:
    def line(row: Row) -> str:
        return " & ".join(map(_latex, row)) + r" \\"

    lines = [line([_corner(grid.blocks), *grid.head])]
    for title, rows, apart in grid.blocks:
        lines.append(r"\midrule")
        if len(grid.blocks) > 1:
            title = _latex(Cell(title, style="bold"))
            lines.append(f"\\multicolumn{{{len(grid.head) + 1}}}{{l}}{{{title}}} \\\\")
        lines += map(line, rows)
        lines += [r"\addlinespace", *map(line, apart)] if apart else []
    columns = "l" * grid.texts + "r" * (len(grid.head) + 1 - grid.texts)
    return TABULAR % (columns, "\n".join(lines))


def _latex(cell: Cell) -> str:
    text = latex_text(cell.text)
    command = {"bold": r"\textbf", "italic": r"\textit"}.get(cell.style)
    text = f"{command}{{{text}}}" if command and text else text
    return text + (f"\\textsuperscript{{{','.join(cell.marks)}}}" if cell.marks else "")
