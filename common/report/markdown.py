"""The table that all parts of the report exchange, and its Markdown, which reads well as plain text too."""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Table:
    """Rows of cells under a header, with text before and after; `lacking` is shown if there are no rows."""

    title: str
    head: list[str]
    rows: list[list[str]]
    notes: list[str] = field(default_factory=list)
    lacking: str = ""

    def markdown(self) -> list[str]:
        """Paragraphs: the title, the table, the notes."""
        body = table([self.head, *self.rows]) if self.rows else f"({self.lacking})"
        return [*filter(None, [self.title]), body, *self.notes]


def table(lines: list[list[str]]) -> str:
    """Rows of cells, the first one the header, in padded columns; a | in a cell, as in a path, is escaped."""
    lines = [[cell.replace("|", r"\|") for cell in line] for line in lines]
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    return "\n".join([text[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *text[1:]])
