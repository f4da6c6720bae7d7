"""report.html: the whole report in one file that needs no network and no server."""

import base64
import io
import re
from dataclasses import dataclass, replace
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from common.files import write_text
from common.report import builds, commands, style, tables
from common.report.latex import slug
from common.report.markdown import Table
from common.report.results import Results

CAPTIONS = {  # by the figure's file name, in the order shown
    "curves": "Test accuracy against percent of labels: mean and 95% interval; of fewer than three seeds the points "
    "themselves. The paper's curves are dashed, in the row's colour.",
    "labels": "Test accuracy against all labels that any network of a row saw, each counted once: its teacher's and "
    "those that chose an epoch too.",
    "epochs": "Validation accuracy against epochs, in the round with about half of the labels.",
    "losses": "Each term of the objective and of the sampler, with its weight, against epochs, in the same round. "
    "Dotted: the loss of a discriminator that guesses.",
    "macs": "Test accuracy with the most labels a row has, against multiply-accumulates. Rows of one network stand "
    "beside each other.",
    "deployment": "Test accuracy of what was exported, against latency and multiply-accumulates, in fp32 and int8.",
    "classes": "Test accuracy of each class, mean over seeds, in the round with about half of the labels.",
    "queries": "Share of each class in what was queried less its share of the pool, mean over seeds. The initial "
    "labels and a round that takes all that is left are not counted.",
}


@dataclass(frozen=True)
class Section:
    """A heading with its tables, figures (SVG and caption) and pictures that are hidden until asked for."""

    title: str
    tables: list[Table]
    figures: list[tuple[str, Markup, str]]
    sheets: list[tuple[str, str]]  # name, data: URI

    @property
    def id(self) -> str:
        return slug(self.title)


def write(
    found: Results,
    second: Table,
    changes: list[Table],
    claims: dict[str, list[Table]],
    files: list[Path],
    output: Path,
) -> list[Path]:
    """Writes report.html.

    Args:
        second: Table II.
        changes: the tables of an ablation, if there is one.
        claims: the statistics, by heading.
        files: what was written so far; its figures (.svg) and contact sheets (queried-*.png) go into the page.
    """
    cells = tables.cells(found)
    first = tables.table1(found, cells)
    first[-1] = replace(first[-1], notes=tables.notes1(found, cells))
    drawn = {file.stem: file for file in files if file.suffix == ".svg"}
    names = sorted(drawn, key=list(CAPTIONS).index)
    figures = [(name, inline(drawn[name], f"f{n}-"), CAPTIONS[name]) for n, name in enumerate(names)]
    sheets = [(file.stem.removeprefix("queried-"), embedded(file)) for file in files
              if file.suffix == ".png" and file.name.startswith("queried-")]  # fmt: skip
    sections = [
        Section("Table I", first, figures[:1], []),
        Section("Table II", [second], [], []),
        Section("Ablation", changes, [], []),
        Section("Figures", [], figures[1:], []),
        *(Section(f"Statistics: {heading}", group, [], []) for heading, group in claims.items()),
        Section("Queried images", [], [], sheets),
        Section("Runs", [provenance(found), commands.table(found)], [], []),
    ]
    sections = [part for part in sections if part.tables or part.figures or part.sheets]
    settings = ", ".join(" on ".join(setting) for setting in found.settings())
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    count = len(found.configs) - len(found.unfinished())
    path = output / "report.html"
    text = environment.get_template("page.html.jinja").render(settings=settings, count=count, sections=sections)
    write_text(path, text)
    return [path]


def provenance(found: Results) -> Table:
    """The runs, each with its row and build."""
    rows = []
    for run, group in found.rows[found.rows["own"]].groupby("run", sort=False):  # its teachers' rows have the same run
        made = found.made[run]
        parts = [", ".join(dict.fromkeys(filter(None, (getattr(sitting, name) for sitting in made.sittings))))
                 for name in builds.Sitting.__annotations__]  # fmt: skip
        row = group.iloc[0]
        parts[0] = re.sub(r"\b([0-9a-f]{10})[0-9a-f]{30}", r"\1", parts[0])
        teachers = f"{len(made.teachers)} teachers" if len(made.teachers) > 1 else "".join(made.teachers)[:10]
        rows.append([Path(run).name, row["label"], f"{row['model']} on {row['dataset']}", str(row["seed"]),
                     str(len(group)), *parts, teachers])  # fmt: skip
    head = ["run", "row", "setting", "seed", "rounds", *builds.Sitting.__annotations__, "teacher"]
    return Table("What each run was made with; blank where there is no record.", head, rows)


def inline(path: Path, prefix: str) -> Markup:
    """An SVG file as part of a page: text in the page's colour, unique ids, no references to other hosts.

    It has a minimum width, so that its text stays readable: a phone scrolls it.
    """
    text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r' (xmlns(:\w+)?|version)="[^"]*"', "", text).replace("xlink:href", "href")
    text = re.sub(r'( id="|href="#|url\(#)', rf"\g<1>{prefix}", text)
    least = float(re.search(r'width="([\d.]+)pt"', text)[1]) / 16
    text = re.sub(r' width="[\d.]+pt" height="[\d.]+pt"', f' style="min-width: {least:.0f}rem"', text, count=1)
    text = text.replace(style.INK, "currentColor").replace(f"fill: {style.PAPER}", "fill: none")
    return Markup(text)  # matplotlib escapes what it writes


def embedded(path: Path) -> str:
    """A picture as a data: URI, in PNG or WebP, whichever is smaller (photographs: WebP)."""
    packed = {"png": path.read_bytes()}
    with Image.open(path) as picture:
        picture.convert("RGB").save(stream := io.BytesIO(), "WEBP", quality=70)
    packed["webp"] = stream.getvalue()
    kind = min(packed, key=lambda name: len(packed[name]))
    return f"data:image/{kind};base64,{base64.b64encode(packed[kind]).decode()}"
