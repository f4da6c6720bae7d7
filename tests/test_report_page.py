"""report.html: complete, self-contained, safe from run names, and usable in a browser."""

import html
import json
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from common import report

from .reports import export, made, predictions, run, sitting

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WICKED = "<img src=x onerror=alert(1)>"
VOID = {"meta", "br", "img", "input", "link", "hr"}


class Page(HTMLParser):
    """Checks that every tag is closed, and keeps ids, references, attributes and cells."""

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.refs, self.attributes, self.tables, self.tags = [], [], [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tbody":
            self.tables.append([])
        if tag == "tr" and "tbody" in self.open:
            self.tables[-1].append([])
        if tag in ("td", "th") and "tbody" in self.open:
            self.tables[-1][-1].append("")
        self.attributes += attrs
        for name, value in attrs:
            if name == "id":
                self.ids.append(value)
            if name in ("href", "src", "aria-labelledby", "clip-path") and not value.startswith("data:"):
                self.refs.append(value)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th") and "tbody" in self.open:
            self.tables[-1][-1][-1] += data


def test_table_two_keeps_its_notes(tmp_path):
    """For example, that it was timed on a busy machine."""
    folder = export(run(tmp_path / "cm", "Random", 1, {10: 55}), 0, (1, 1, 4), (55, 54, 80), busy="True")
    report.write([folder], tmp_path / "out", time_inference=False)
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert f"Timed while other processes were busy, to be taken again: {folder}." in text
    section = text[text.index("Table II</h2>") :]
    assert re.search("<th scope=.col.>([^<]*)", section)[1] == "row"  # stays in sight when a phone scrolls


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A report of three seeds of two rows on digits, with one recorded build and a class named like a tag."""
    folder = tmp_path_factory.mktemp("page")
    pool = {"classes": [WICKED, *(f"class {n}" for n in range(1, 10))], "images": [10] * 10}
    runs = []
    for seed, lower in ((1, 0.0), (2, 0.4), (3, 0.1)):
        record = {"made_with": [sitting(commit=f"{seed}" * 40)], "pool": pool}
        name = f"cm{seed}" if seed > 1 else f"<script>alert({seed})&"
        curve = {10: 55.5 - lower, 50: 9.25 + lower}
        runs.append(run(folder / name, "Random", seed, curve, dataset="digits", **record))
        runs.append(run(folder / f"kd{seed}", "KD", seed, {10: 60.0, 50: 65.0 - lower}, dataset="digits"))
    predictions(runs[1], 0, [0, 1, 2, 3, 3], [0, 1, 2, 4, 4])
    made(runs[0], made_with=[sitting(machine=WICKED)])
    files = report.write(runs, folder / "out", time_inference=False, data_dir=folder, mixed=True)
    assert files[-1].name == "report.html"
    return files[-1]


def test_the_page_is_whole_and_needs_nothing_else(written):
    text = written.read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.ids) == len(set(page.ids))  # including those of the figures
    named = {reference.removeprefix("url(").removesuffix(")").removeprefix("#") for reference in page.refs}
    assert named <= set(page.ids) and len(named) > 20
    own = re.sub(r"data:image/[a-z]+;base64,[A-Za-z0-9+/=]*", "", text)
    assert not re.search(r"https?:|[\"'(=]//|@import|url\((?!#)", own)
    assert {"svg", "figure", "details"} <= set(page.tags) and page.tags.count("svg") == 6
    assert len(re.findall(r'src="data:image/(?:png|webp);base64,', text)) == 6 and text.count('loading="lazy"') == 6
    assert "#ffffff;" not in text.split("</style>")[1] and "#1b1e23" not in text.split("</style>")[1]


def test_what_a_run_is_called_is_text(written):
    text = written.read_text(encoding="utf-8")
    assert "alert(1)" in text and "<script>alert" not in text and WICKED not in text
    page = Page(text)
    assert page.tags.count("script") == 1 and not [name for name, _ in page.attributes if name.startswith("on")]
    runs = page.tables[-2]
    assert len(runs) == 6 and runs[0][0] == "<script>alert(1)&" and WICKED in runs[0]
    assert [row[0] for row in runs].count("kd2") == 1 and "2222222222" in [row[5] for row in runs]


def test_the_tables_are_those_of_the_files(written):
    page = Page(written.read_text(encoding="utf-8"))
    first = page.tables[0]
    assert [row[0] for row in first] == ["CM", "CM+KD†"]
    assert first[0][1:] == ["55.33 ± 0.52 (n=3)", "9.42 ± 0.52 (n=3)"]
    lines = (written.parent / "table1.md").read_text(encoding="utf-8").splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == first[0]
    assert [row[0] for row in page.tables[1]] == ["CM", "CM+KD†"]


CHECK = """
<script>
const errors = [];
addEventListener("error", event => errors.push(event.message));
addEventListener("securitypolicyviolation", event => errors.push(event.blockedURI));
addEventListener("load", async () => {
  const found = { orders: [], wide: [] };
  const names = table => [...table.tBodies[0].rows].map(row => row.cells[0].textContent);
  const [first] = document.querySelectorAll("table");
  const head = column => first.tHead.rows[0].cells[column];
  const press = column => { head(column).querySelector("button").click(); found.orders.push(names(first)); };
  press(0); press(0); press(2); press(2);
  found.sorted = [head(0).getAttribute("aria-sort"), head(2).getAttribute("aria-sort")];
  const runs = [...document.querySelectorAll("table")].at(-1);
  [...runs.tHead.rows[0].cells].find(cell => cell.textContent === "commit").querySelector("button").click();
  found.runs = names(runs);
  document.querySelectorAll("details").forEach(part => { part.open = true; });
  for (const image of document.images) { image.loading = "eager"; }
  await new Promise(done => setTimeout(done, 3000));
  found.pictures = [...document.images].filter(image => image.naturalWidth > 100).length;
  found.width = innerWidth;
  found.overflow = document.documentElement.scrollWidth - document.documentElement.clientWidth;
  for (const part of document.querySelectorAll("body *")) {
    const box = part.getBoundingClientRect();
    if (box.right > innerWidth + 1 && !part.closest(".scroll")) { found.wide.push(part.tagName + " " + box.right); }
  }
  found.errors = errors;
  parent.document.getElementById("found").textContent = JSON.stringify(found);
});
</script>
"""


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome here")
@pytest.mark.parametrize("width", [390, 1440])
def test_in_a_browser_it_opens_sorts_and_fits(written, width, tmp_path):
    """In a frame, which may be narrower than the browser's minimum window, with a script that inspects it."""
    (tmp_path / "page.html").write_text(
        written.read_text(encoding="utf-8").replace("</title>", "</title>" + CHECK), encoding="utf-8"
    )
    frame = f'<iframe src="page.html" style="width: {width}px; height: 800px; border: 0"></iframe>'
    (tmp_path / "outer.html").write_text('<pre id="found"></pre>' + frame, encoding="utf-8")
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--allow-file-access-from-files", "--dump-dom"]
    words += [f"--user-data-dir={tmp_path / 'profile'}", "--virtual-time-budget=20000", "--window-size=1600,900"]
    done = subprocess.run([*words, (tmp_path / "outer.html").as_uri()], capture_output=True, text=True, timeout=120)
    text = re.search(r'<pre id="found">(.*?)</pre>', done.stdout, re.DOTALL)
    assert text and text[1], done.stderr[-2000:]
    found = json.loads(html.unescape(text[1]))
    assert found["errors"] == [] and found["width"] == width
    up, down = ["CM", "CM+KD†"], ["CM+KD†", "CM"]
    assert found["orders"] == [up, down, up, down]  # by name; by 50%, where 9 comes before 65
    assert found["sorted"] == [None, "descending"]
    assert found["runs"][-3:] == ["kd1", "kd2", "kd3"]  # blank cells last
    assert found["overflow"] <= 0 and found["wide"] == [] and found["pictures"] == 6


@pytest.mark.skipif(BROWSER is None, reason="no chromium or google-chrome here")
def test_a_printed_page_has_the_pictures_that_are_folded_away(written, tmp_path):
    words = [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}"]
    words += [f"--print-to-pdf={tmp_path / 'page.pdf'}", written.as_uri()]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert (tmp_path / "page.pdf").exists(), done.stderr[-2000:]
    assert len(re.findall(rb"/Subtype\s*/Image", (tmp_path / "page.pdf").read_bytes())) >= 6


def test_a_run_without_a_finished_round_is_said_to_be_left_out(tmp_path, capsys):
    begun = run(tmp_path / "kd2", "KD", 2, {})
    files = report.write([run(tmp_path / "kd1", "KD", 1, {10: 60}), begun], tmp_path / "out", time_inference=False)
    assert f"note: {begun}: no finished round yet; the report leaves it out\n" in capsys.readouterr().err
    assert "1 run." in files[-1].read_text(encoding="utf-8")


def test_a_report_without_a_picture_or_a_figure_of_queries_has_no_such_section(tmp_path):
    folder = run(tmp_path / "a", "Random", 1, {10: 60})
    (folder / "queries.csv").unlink()
    page = Path(report.write([folder], tmp_path / "out", time_inference=False)[-1])
    text = page.read_text(encoding="utf-8")
    assert "Queried images" not in text and "(takes two common seeds of two rows, and differences that vary)" in text
    Page(text)
