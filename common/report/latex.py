"""Table I in LaTeX, ready for a paper: caption and label, n, the paper's numbers, the best student in bold."""

import math
import re

from common.report.results import Results

ESCAPES = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "†": r"$^\dagger$"}
ESCAPES |= {sign: f"\\{sign}" for sign in "&%$#_{}"}
ESCAPES |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}"}  # other glyphs in OT1 fonts
DAGGER = r"$^\dagger$ distilled from a teacher that saw every label, or some that its student did not buy."


def table(found: Results, setting: tuple[str, str], percents: list[float], labels: list[str], grid: dict) -> str:
    """A table: the mean with its interval, and below it the paper's number if there is one.

    Args:
        percents, labels, grid: the setting's cells, by (label, percent); each has mean, half_width, n, paper.
    """
    out = set(found.rows.loc[(found.rows["network"] == "teacher") | found.rows["oracle"], "label"])  # never in bold
    best = {}  # only among two students or more
    for percent in percents:
        means = [grid[label, percent].mean for label in labels if (label, percent) in grid and label not in out]
        best[percent] = f"{max(means):.2f}" if len(means) > 1 else ""
    name = f"{escape(setting[0])} on {escape(setting[1])}"
    shares = [escape(f"{percent:.3g}%") for percent in percents]
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table}",
        r"\centering",
        rf"\caption{{Test accuracy (\%) of {name} by share of labels: mean $\pm$ half the width of the 95\% confidence "
        r"interval (Student's $t$) over $n$ seeds; the best student in bold.}",
        rf"\label{{tab:{slug('-'.join(setting))}}}",
        rf"\begin{{tabular}}{{lr{'r' * len(percents)}}}",
        r"\toprule",
        " & ".join(["", "$n$", *shares]) + r" \\",
        r"\midrule",
    ]
    for label in labels:
        row = [grid.get((label, percent)) for percent in percents]
        seeds = sorted({cell.n for cell in row if cell is not None})
        n = str(seeds[0]) if len(seeds) == 1 else f"{seeds[0]}--{seeds[-1]}"
        bold = [label not in out and cell is not None and f"{cell.mean:.2f}" == best[percent]
                for cell, percent in zip(row, percents, strict=True)]  # fmt: skip
        cells = [_cell(cell, strong) for cell, strong in zip(row, bold, strict=True)]
        lines.append(" & ".join([escape(label), n, *cells]) + r" \\")
        if any(cell is not None and not math.isnan(cell.paper) for cell in row):
            theirs = ["" if cell is None or math.isnan(cell.paper) else f"{cell.paper:.2f}" for cell in row]
            lines.append(" & ".join([r"\quad paper", "", *theirs]) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}"]
    if any(label.endswith("†") for label in labels):
        lines += ["", r"\smallskip", rf"{{\footnotesize {DAGGER}}}"]
    return "\n".join([*lines, r"\end{table}"])


def escape(text: str) -> str:
    """LaTeX that shows the text literally."""
    return "".join(ESCAPES.get(sign, sign) for sign in text)


def slug(text: str) -> str:
    """Letters, digits, dots and hyphens: a name for a \\label or an HTML id."""
    return re.sub(r"[^A-Za-z0-9.]+", "-", text).strip("-").lower()


def _cell(cell, bold: bool) -> str:
    if cell is None:
        return ""
    mean = rf"\mathbf{{{cell.mean:.2f}}}" if bold else f"{cell.mean:.2f}"
    return f"${mean}$" if math.isnan(cell.half_width) else rf"${mean} \pm {cell.half_width:.2f}$"
