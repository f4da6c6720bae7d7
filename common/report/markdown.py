"""A table in Markdown that reads well as plain text too."""


def table(lines: list[list[str]]) -> str:
    """Rows of cells, the first one the head, in columns of equal width."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["| " + " | ".join(map(str.ljust, line, widths)) + " |" for line in lines]
    return "\n".join([text[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *text[1:]])
