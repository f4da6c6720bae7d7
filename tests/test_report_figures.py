"""The figures, read from their axes: within possible values, one colour per row everywhere."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from common import report
from common.report import figures, heatmaps, results, sheets, style

from .reports import edit, predictions, run

POOL = {"classes": ["bee", "ant"], "images": [75, 25]}
LOSSES = "round,epoch,loss,ce,feat,logit,adv,vae,disc,val_accuracy"


@pytest.fixture
def drawn(monkeypatch):
    """Figures by name, open as they are when saved."""
    kept = {}
    monkeypatch.setattr(style, "save", lambda figure, path: kept.update({path.name: figure}) or [path])
    yield kept
    for figure in kept.values():
        style.plt.close(figure)


def seeds(tmp_path, method, curves, name="", **options):
    """Runs of one row: a curve (accuracy by percent) for each seed."""
    name = name or method
    return [run(tmp_path / f"{name}{n}", method, n, curve, **options) for n, curve in enumerate(curves, 1)]


def line(axes, label):
    """x and y of the line with this label."""
    found = next(line for line in axes.lines if line.get_label() == label)
    return found.get_xdata().tolist(), found.get_ydata().tolist()


def test_no_band_and_no_axis_passes_what_an_accuracy_can_be(tmp_path, drawn):
    """With 0, 50 and 100 the interval is 50 +- 124."""
    found = results.read(seeds(tmp_path, "Random", [{10: 0, 40: 40}, {10: 50, 40: 41}, {10: 100, 40: 42}]))
    figures.curves(found, tmp_path)
    axes = drawn["curves"].axes[0]
    assert axes.get_ylim() == (0, 100) and axes.get_xlim() == (0, 100)
    band = axes.collections[0].get_paths()[0].vertices
    assert band[:, 1].min() == 0 and band[:, 1].max() == 100
    # t(0.975, 2) = 4.3027 times 1 / sqrt(3) around 41
    at40 = band[band[:, 0] == 40][:, 1]
    assert at40.min() == pytest.approx(41 - 2.484, abs=1e-3) and at40.max() == pytest.approx(41 + 2.484, abs=1e-3)


def test_fewer_than_three_seeds_are_drawn_as_points(tmp_path, drawn):
    found = results.read(seeds(tmp_path, "Random", [{10: 50, 40: 60}, {10: 54, 40: 61}]))
    figures.curves(found, tmp_path)
    axes = drawn["curves"].axes[0]
    assert line(axes, "CM") == ([10, 40], [52, 60.5])
    (points,) = axes.collections  # no band
    assert sorted(map(tuple, points.get_offsets().tolist())) == [(10, 50), (10, 54), (40, 60), (40, 61)]
    low, high = axes.get_ylim()
    assert 45 < low < 50 and 61 < high < 70


def test_the_papers_curve_is_dashed_in_the_rows_colour(tmp_path, drawn):
    found = results.read([*seeds(tmp_path, "Random", [{10: 50, 40: 60}]), *seeds(tmp_path, "KD", [{10: 58}])])
    figures.curves(found, tmp_path)
    axes = drawn["curves"].axes[0]
    dashed = [each for each in axes.lines if each.get_linestyle() == "--"]
    assert [each.get_color() for each in dashed] == [style.COLORS[0], style.COLORS[1]]
    assert dashed[0].get_ydata()[:2].tolist() == [54.59, 58.46] and dashed[0].get_xdata().tolist()[-1] == 100
    names = [text.get_text() for text in drawn["curves"].legends[0].get_texts()]
    assert names == ["CM (n=1)", "CM+KD† (n=1)", "the paper's"]


def test_the_legend_counts_the_seeds_behind_a_point(tmp_path, drawn):
    """Three in all, two at each percent."""
    figures.curves(results.read(seeds(tmp_path, "Random", [{10: 50, 40: 60}, {10: 51}, {40: 61}])), tmp_path)
    assert drawn["curves"].legends[0].get_texts()[0].get_text() == "CM (n=2)"


def test_another_axis_of_labels_has_no_curve_of_the_paper(tmp_path, drawn):
    found = results.read(seeds(tmp_path, "Random", [{10: 50, 40: 60}]))
    found.rows["seen"] = [4500.0, 18000.0]
    figures.curves(found, tmp_path, figures.Labels("seen", "labels"), "by-labels")
    axes = drawn["by-labels"].axes[0]
    assert line(axes, "CM")[0] == [4500, 18000] and len(axes.lines) == 1
    assert axes.get_xlim()[0] == 0 and axes.get_xlim()[1] >= 18000 and axes.get_xlabel() == "labels"


def test_rounds_that_saw_the_same_labels_stay_points_of_their_own(tmp_path, drawn):
    """An all-seeing teacher's rows: 160 labels at both 10 and 40%. Seeds are averaged, rounds are not."""
    found = results.read(seeds(tmp_path, "Random", [{10: 50, 40: 60}, {10: 54, 40: 61}, {10: 55, 40: 65}]))
    found.rows["labels_in_all"] = "160"
    figures.labels(found, tmp_path)
    assert line(drawn["labels"].axes[0], "CM") == ([160, 160], [53, 62])  # means, not medians


def test_a_row_keeps_its_colour_where_another_has_no_record_of_labels(tmp_path, drawn):
    """Two strategies share the remaining colours: the first has no record, the second keeps its own colour."""
    runs = [run(tmp_path / name, "EnCoDe", 1, {10: 58, 40: 60}, sampler=name) for name in ("entropy", "discriminator")]
    found = results.read(runs)
    found.rows["labels_in_all"] = found.rows["sampler"].map({"entropy": "", "discriminator": "160"})
    figures.labels(found, tmp_path)
    (drawn_line,) = drawn["labels"].axes[0].lines
    look = style.styles(found)[drawn_line.get_label()]
    assert "discriminator" in drawn_line.get_label() and drawn_line.get_color() == look["color"] != style.COLORS[0]
    assert drawn_line.get_marker() == look["marker"]
    (handle,) = drawn["labels"].legends[0].legend_handles
    assert handle.get_color() == look["color"] and handle.get_marker() == look["marker"]


def test_a_row_has_one_colour_in_every_figure_and_report(tmp_path, drawn):
    runs = [*seeds(tmp_path, "KD", [{10: 58, 40: 62}]), *seeds(tmp_path, "EnCoDe", [{10: 58}], sampler="vae")]
    variants = ("entropy", "teacher_confidence", "discriminator", "random")
    runs += [run(tmp_path / name, "EnCoDe", 1, {10: 58}, sampler=name) for name in variants]
    runs += [run(tmp_path / "svhn", "EnCoDe", 1, {10: 58}, sampler="entropy", dataset="svhn")]
    found = results.read(runs)
    looks = style.styles(found)
    assert looks["CM+KD†"]["color"] == style.COLORS[1] and looks["EnCoDe†"]["color"] == style.COLORS[2]
    assert len({look["color"] for look in looks.values()}) == len(looks) == 6
    figures.curves(found, tmp_path)
    figures.epochs(found, tmp_path)
    figures.macs(found, tmp_path)
    for name in ("curves", "epochs"):
        for axes in drawn[name].axes:
            solid = {each.get_label(): to_hex(each.get_color()) for each in axes.lines if each.get_linestyle() == "-"}
            assert solid and all(looks[label]["color"].lower() == color for label, color in solid.items())
    bars = [bar for axes in drawn["macs"].axes for bar in axes.containers]
    shown = {bar.get_label(): to_hex(bar.lines[0].get_color()) for bar in bars}
    assert shown == {label: look["color"].lower() for label, look in looks.items()}
    many = [*runs, *(run(tmp_path / f"{n}", "EnCoDe", 1, {10: 58}, sampler=f"own{n}") for n in range(9))]
    looks = style.styles(results.read(many)).values()
    assert len({(look["color"], look["marker"]) for look in looks}) == len(looks) == 15


def test_epochs_begin_at_one_and_say_at_which_percent_in_three_figures(tmp_path, drawn):
    found = results.read(seeds(tmp_path, "Random", [{14.28571: 50, 57.142857: 60}]))
    figures.epochs(found, tmp_path)
    axes = drawn["epochs"].axes[0]
    assert line(axes, "CM") == ([1, 2], [41, 42]) and axes.get_xlim() == (1, 2)
    assert drawn["epochs"].legends[0].get_texts()[0].get_text() == "CM, 57.1% (n=1)"


def test_losses_have_a_panel_for_each_term_that_was_logged(tmp_path, drawn):
    old = run(tmp_path / "old", "Random", 1, {50: 60})
    new = run(tmp_path / "new", "EnCoDe", 1, {50: 60}, sampler="vae")
    rows = [LOSSES, "0,1,5,2,3,,,0.5,0.7,41", "0,2,4,1.5,2,,0.01,0.25,0.69,42"]
    (new / "history.csv").write_text("\n".join(rows) + "\n")
    figures.losses(results.read([old, new]), tmp_path)
    panels = {axes.get_title(): axes for axes in drawn["losses"].axes}
    assert list(panels) == ["all terms", "ce", "feat", "adv", "vae", "disc"]  # no logits were distilled
    assert line(panels["all terms"], "CM")[1] == [0.5, 0.5] and line(panels["all terms"], "EnCoDe†")[1] == [5, 4]
    assert line(panels["feat"], "EnCoDe†") == ([1, 2], [3, 2]) and line(panels["adv"], "EnCoDe†") == ([2], [0.01])
    assert [each.get_label() for each in panels["feat"].lines] == ["EnCoDe†"]
    guessing = next(each for each in panels["disc"].lines if each.get_linestyle() == ":")
    assert guessing.get_ydata()[0] == pytest.approx(np.log(2))
    assert all(axes.get_ylim()[0] >= 0 for axes in panels.values())


def test_macs_are_the_networks_own(tmp_path, drawn):
    student = seeds(tmp_path, "Random", [{10: 50, 40: 60}, {10: 51, 40: 61}, {10: 52, 40: 99}])
    teacher = run(tmp_path / "t", "Single", 1, {100: 81}, network="teacher")
    figures.macs(results.read([*student, teacher]), tmp_path)
    axes = drawn["macs"].axes[0]
    points = {bar.get_label(): bar.lines[0].get_xydata()[0].tolist() for bar in axes.containers}
    assert points["Single teacher"] == [pytest.approx(94.1e6, rel=1e-3), 81]
    assert points["CM"] == [pytest.approx(1.36e6, rel=5e-3), pytest.approx(220 / 3)]  # at the highest percent, 40%
    high = max(segment[1][1] for bar in axes.containers for segment in bar.lines[2][0].get_segments())
    assert high == 100 and axes.get_ylim()[1] == 100


def test_macs_show_each_row_with_its_own_most_labels_and_its_own_networks_cost(tmp_path, drawn):
    cm = run(tmp_path / "cm", "Random", 1, {10: 50, 40: 60}, image_size=64)
    kd = run(tmp_path / "kd", "KD", 1, {10: 58, 20: 59}, image_size=64)
    small = edit(run(tmp_path / "small", "Single", 1, {100: 70}, image_size=32), "results.csv", "AlexNet", "ResNet")
    figures.macs(results.read([cm, kd, small]), tmp_path)
    points = {bar.get_label(): bar.lines[0].get_xydata()[0].tolist() for bar in drawn["macs"].axes[0].containers}
    assert {label: accuracy for label, (_, accuracy) in points.items()} == {"CM": 60, "CM+KD†": 59, "Single": 70}
    assert points["Single"][0] == pytest.approx(12.5e6, rel=5e-3)  # ResNet-8 at 32 pixels, and AlexNet's student at 64,
    assert points["CM"][0] * points["CM+KD†"][0] == pytest.approx(1.36e6**2, rel=5e-3)  # left and right of its cost


def test_half_of_the_labels_is_each_data_sets_own_round(tmp_path):
    runs = [
        run(tmp_path / "a", "Random", 1, {10: 50, 50: 60}),
        run(tmp_path / "b", "Random", 1, {40: 61}, dataset="svhn"),
    ]
    half = figures.at_half(results.read(runs).history)
    assert half.groupby("dataset")["percent"].unique().map(list).to_dict() == {"cifar10": [50], "svhn": [40]}
    both = [run(tmp_path / f"c{n}", "Random", 1, {n: 60}) for n in (60, 40)]
    for order in (both, both[::-1]):  # regression: of two as far away, the first that was named
        assert set(figures.at_half(results.read(order).history)["percent"]) == {40}


def test_a_row_named_by_hand_is_drawn_after_the_papers_in_a_look_of_its_own(tmp_path):
    """Regression: a name that begins with none of the paper's rows ended in a traceback, one that is a daggered row's
    without the dagger had its colour."""
    runs = [run(tmp_path / name, "KD", 1, {10: 60}) for name in "ab"] + [run(tmp_path / "c", "Random", 1, {10: 50})]
    names = {runs[1]: "my own", runs[2]: "CM+KD"}
    found = results.read(runs, names=names)
    assert style.order(found.rows["label"]) == ["CM+KD", "CM+KD†", "my own†"]
    assert len({(look["color"], look["marker"]) for look in style.styles(found).values()}) == 3
    assert report.write(runs, tmp_path / "out", time_inference=False, names=names)


def test_class_balance_is_the_difference_to_the_pools_share(tmp_path, drawn):
    """Of 100 images 75 are bees. Round 1 queries a bee and three ants, round 2 the rest, which no strategy chose."""
    folder = run(tmp_path / "a", "Random", 1, {10: 50, 20: 55, 100: 60}, pool=POOL)
    rows = ["0,0,,0", "0,1,,0", "1,2,,0", "1,3,,1", "1,4,,1", "1,5,,1", *(f"2,{n},,0" for n in range(6, 60))]
    (folder / "queries.csv").write_text("\n".join(["round,index,score,label", *rows]) + "\n")
    found = results.read([folder])
    heatmaps.class_balance(found, tmp_path)
    figure = drawn["queries"]
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["bee", "ant"]
    mesh = axes.collections[0]
    assert mesh.get_array().ravel().tolist() == [25 - 75, 75 - 25]
    assert mesh.get_clim() == (-50, 50)  # zero is in the middle of the scale
    assert [text.get_text() for text in axes.texts] == ["-50.0", "+50.0"]
    table = pd.read_csv(tmp_path / "queries.csv")
    assert table.loc[table["round"] == 1, ["class", "name", "images"]].to_numpy().tolist() == [
        [0, "bee", 1], [1, "ant", 3]
    ]  # fmt: skip
    edit(folder, "config.json", '"pool"', '"swimming"')  # no record: the initial labels, all bees, stand for the pool
    heatmaps.class_balance(results.read([folder]), tmp_path)
    axes = drawn["queries"].axes[0]
    assert axes.collections[0].get_array().ravel().tolist() == [25 - 100, 75]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1"]


def test_without_a_record_a_runs_own_initial_labels_stand_for_its_pool(tmp_path):
    """CM began with bees alone, CM+KD with ants alone; both query one of each: 50 points off, each way."""
    folders = [run(tmp_path / method, method, 1, {10: 50, 20: 55}) for method in ("Random", "KD")]
    for folder, first in zip(folders, (0, 1), strict=True):
        rows = [f"0,0,,{first}", f"0,1,,{first}", "1,2,,0", "1,3,,1"]
        (folder / "queries.csv").write_text("\n".join(["round,index,score,label", *rows]) + "\n")
    grid = heatmaps._imbalance(results.read(folders), ("AlexNet", "cifar10"))
    assert grid.to_numpy().tolist() == [[-50, 50], [50, -50]]


def test_class_balance_is_a_mean_over_all_seeds(tmp_path, drawn):
    """Including those that queried none of a class: three queries per round stay three."""
    folders = [run(tmp_path / str(seed), "Random", seed, {10: 50, 20: 55}) for seed in (1, 2)]
    for folder, label in zip(folders, (0, 1), strict=True):
        rows = [f"{n},{n * 3 + k},,{label}" for n in range(2) for k in range(3)]
        (folder / "queries.csv").write_text("\n".join(["round,index,score,label", *rows]) + "\n")
    heatmaps.class_balance(results.read(folders), tmp_path)
    table = pd.read_csv(tmp_path / "queries.csv")
    assert table["images"].tolist() == [1.5] * 4


def test_the_first_rounds_of_a_rows_several_runs_are_not_averaged(tmp_path, drawn):
    """`make table1` trains 10 to 60% in one run and 100% in another: both have a round 0."""
    part, full = run(tmp_path / "part", "Random", 1, {10: 50, 40: 60}), run(tmp_path / "full", "Random", 1, {100: 70})
    rows = [f"0,{index},,0" for index in range(9)]
    (full / "queries.csv").write_text("\n".join(["round,index,score,label", *rows]) + "\n")
    heatmaps.class_balance(results.read([part, full]), tmp_path)
    table = pd.read_csv(tmp_path / "queries.csv")
    assert table[["round", "percent", "class", "images"]].to_numpy().tolist() == [
        [0, 10, 0, 1], [0, 10, 1, 2], [0, 100, 0, 9], [1, 40, 0, 1], [1, 40, 1, 2]
    ]  # fmt: skip


def test_macs_say_each_panels_own_percent(tmp_path, drawn):
    svhn = run(tmp_path / "s", "Random", 1, {40: 61}, dataset="svhn")
    figures.macs(results.read([*seeds(tmp_path, "Random", [{10: 50, 100: 60}]), svhn]), tmp_path)
    assert drawn["macs"].legends[0].get_texts()[0].get_text() == "CM, 40% or 100% (n=1)"


def test_class_balance_of_a_run_that_chose_nothing_has_no_figure(tmp_path, drawn):
    folder = run(tmp_path / "a", "Random", 1, {100: 60})
    edit(folder, "queries.csv", "0,3,,1", "0,5,,1")
    assert [file.name for file in heatmaps.class_balance(results.read([folder]), tmp_path)] == ["queries.csv"]


def test_class_accuracy_is_the_mean_over_seeds_of_each_class(tmp_path, drawn):
    runs = seeds(tmp_path, "Random", [{10: 50, 50: 60}, {10: 50, 50: 80}, {10: 50, 50: 20}], pool=POOL)
    predictions(runs[0], 1, [0, 0, 1, 1, 1], [0, 0, 0, 0, 1])  # bees 2 of 4, the ant; 60%
    predictions(runs[1], 1, [0, 0, 0, 1, 1], [0, 0, 0, 0, 1])  # bees 3 of 4
    predictions(runs[2], 1, [1, 1, 1, 1, 1], [0, 0, 0, 0, 1])  # none
    found = results.read(runs)
    heatmaps.class_accuracy(found, tmp_path)
    axes = drawn["classes"].axes[0]
    assert axes.collections[0].get_array().ravel().tolist() == [pytest.approx(125 / 3), 100]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["CM, 50%"]
    lines = (tmp_path / "classes.csv").read_text().splitlines()
    assert lines[0] == "model,dataset,label,percent,class,name,accuracy,n"
    assert lines[1:] == ["AlexNet,cifar10,CM,50,0,bee,41.67,3", "AlexNet,cifar10,CM,50,1,ant,100,3"]


def test_a_contact_sheet_holds_images_that_are_not_square():
    """Regression: an .npz may hold such images; they raised a traceback."""
    pixels = np.arange(3 * 2 * 4 * 3, dtype=np.uint8).reshape(3, 2, 4, 3)
    source = SimpleNamespace(x_train=pixels)
    queries = pd.DataFrame({"round": [0, 0, 0], "index": [0, 1, 2], "class": [0, 1, 1]})
    sheet = sheets._sheet(source, queries, [0], [0, 1])
    side = sheets.SIDE
    assert sheet.shape == (side * 3 + 4, 2 * (side * 5 + 4), 3)  # a margin of 1 per image, of 4 per cell
    second = side * 5 + 4
    for number, left in enumerate((2, second + 2, second + 2 + 5)):
        assert (sheet[2:4, left : left + 4] == pixels[number]).all()
    assert (sheet == 255).sum() == sheet.size - pixels.size


def test_each_row_of_a_contact_sheet_has_that_rounds_queries_alone():
    """First choice first; the column follows from the label that the run used, wherever `--labels` is now."""
    pixels = np.arange(4, dtype=np.uint8)[:, None, None, None].repeat(2, 1).repeat(2, 2).repeat(3, 3)
    source = SimpleNamespace(x_train=pixels, y_train=np.full(4, -1))
    queries = pd.DataFrame({"round": [0, 0, 1, 1], "index": [3, 1, 2, 0], "class": [0, 1, 0, 0]})
    sheet = sheets._sheet(source, queries, [0, 1], [0, 1])[..., 0]
    tall, wide = (side // 2 for side in sheet.shape)
    cells = [sheet[r * tall : (r + 1) * tall, c * wide : (c + 1) * wide] for r in (0, 1) for c in (0, 1)]
    shown = [list(dict.fromkeys(cell[2][cell[2] < 255].tolist())) for cell in cells]  # along each cell's first images
    assert shown == [[3], [1], [2, 0], []]


def test_a_contact_sheet_fits_a_page_whatever_the_rounds_and_classes(tmp_path):
    percents = dict.fromkeys(range(5, 65, 5), 50)
    folder = run(tmp_path / "digits-seed1", "Random", 1, percents, dataset="digits")
    files = sheets.contact_sheets(results.read([folder]), tmp_path, tmp_path)
    assert [file.name for file in files] == ["queried-digits-seed1-1.png", "queried-digits-seed1-2.png"]
    for file in files:
        height, width, _ = style.plt.imread(file).shape
        assert width / 200 <= 8.27 and height / 200 <= 11.69  # A4 in inches


def test_macs_of_two_image_sizes_are_two_networks_costs(tmp_path, drawn):
    folders = [run(tmp_path / "cm", "Random", 1, {10: 55}, image_size=64)]
    folders.append(run(tmp_path / "en", "EnCoDe", 1, {10: 58}, sampler="vae", image_size=128))
    figures.macs(results.read(folders), tmp_path)
    texts = [text.get_text() for text in drawn["macs"].axes[0].texts]
    assert texts == ["AlexNet student, 64 px\n1.36 M", "AlexNet student, 128 px\n3.9 M"]
