"""A trained network used outside its run: from one file, on images of any kind."""

import csv
import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from common import augment, data, predict, runs
from common.augment import View
from common.datasets import pixels
from common.errors import InputError
from common.files import read_tensors
from common.networks import PAIRS

from .conftest import BUDGET, TOY, parse, run


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run of two rounds of one epoch."""
    folder = tmp_path_factory.mktemp("trained")
    words = "--rounds 2 --train_epochs 1 --lr_task 0.05 --save_path".split()  # noqa: SIM905
    run("Random", *TOY, *BUDGET, *words, str(folder))
    return folder / "random-seed5"


@pytest.fixture
def photos(tmp_path):
    """The first five test images of digits as PNG files, 8x8, and what they are."""
    images = data.load(parse("Single", "--image_size", "8"))
    (tmp_path / "photos" / "more").mkdir(parents=True)
    for number, square in enumerate(images.test[:5].numpy()):
        Image.fromarray(square).save(tmp_path / "photos" / ("more" if number > 2 else "") / f"{number}.png")
    return tmp_path / "photos"


def called(capsys, *words) -> list[list[str]]:
    predict.main([str(word) for word in words])
    return list(csv.reader(capsys.readouterr().out.splitlines()))


def test_a_rounds_file_alone_is_enough(trained, tmp_path):
    alone = shutil.copy(trained / "round_01.pt", tmp_path / "mine.pt")
    net, classes, size, normalization, record, _ = predict.load_student(alone)
    assert classes == list("0123456789") and size == 64 and normalization == {"mean": 0.5, "std": 0.5}
    assert [record[name] for name in ("model", "network", "method", "round")] == ["AlexNet", "student", "Random", 1]
    assert type(net.features[1]) is nn.MaxPool2d and not net.training  # plain layers, in eval mode
    images = data.load(parse("Random"))
    with torch.no_grad():
        right = net(augment.pixels(images.test, View(torch.arange(len(images.test))))).argmax(1) == images.test_labels
    assert f"{100 * right.float().mean():.2f}" == record["test_accuracy"]


def test_the_last_round_or_the_one_asked_for(trained):
    weights = [read_tensors(trained / f"round_0{number}.pt")["state_dict"]["classifier.2.bias"] for number in (0, 1)]
    assert not torch.equal(*weights)
    assert torch.equal(predict.load_student(trained).net.classifier[4].bias, weights[1])
    assert torch.equal(predict.load_student(str(trained), round=0).net.classifier[4].bias, weights[0])


def test_rounds_of_a_run_before_this_one_in_its_folder_are_not_taken(trained, tmp_path):
    """With its state.pt deleted a run starts over; files of rounds it has not reached yet are still the old run's."""
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    assert predict.rounds(copy) == [0, 1]
    head, first, *_ = (copy / "results.csv").read_text().splitlines()
    (copy / "results.csv").write_text(f"{head}\n{first}\n")
    assert predict.rounds(copy) == [0]
    (copy / "results.csv").write_text(f"{head}\n")
    with pytest.raises(InputError, match="no finished round"):
        predict.rounds(copy)
    (copy / "results.csv").unlink()  # a folder with only the weights
    assert predict.rounds(copy) == [0, 1]


def test_an_older_network_does_not_answer_for_a_round_whose_file_is_gone(trained, tmp_path):
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    (copy / "round_01.pt").unlink()
    with pytest.raises(InputError, match=r"round_01\.pt is not there, though results\.csv has this .* --round \(0\)$"):
        predict.load_student(copy)
    assert predict.load_student(copy, round=0).path == copy / "round_00.pt"


def test_pixels_are_normalized_as_in_training(random_images):
    seen = augment.pixels(random_images.train, View(torch.arange(8)))
    assert torch.equal(predict.OnPixels(nn.Identity(), **augment.NORMALIZATION)(random_images.train), seen)
    other = predict.OnPixels(nn.Identity(), mean=0.2, std=0.4)(torch.full((1, 1, 1, 3), 255, dtype=torch.uint8))
    assert other.flatten().tolist() == pytest.approx([2, 2, 2])


def test_files_get_the_classes_that_the_data_sets_own_images_get(trained, photos, capsys):
    student, images = predict.load_student(trained), data.load(parse("Random"))
    with torch.no_grad():
        logits = student.net(augment.pixels(images.test, View(torch.arange(5))))
    expected = torch.softmax(logits, 1).sort(descending=True)
    found = student.classify(sorted(photos.rglob("*.png"), key=lambda path: path.name), top=3)
    for number, classes in enumerate(found):
        assert [name for name, _ in classes] == [str(index) for index in expected.indices[number, :3].tolist()]
        assert [p for _, p in classes] == pytest.approx(expected.values[number, :3].tolist(), abs=1e-6)
    head, *lines = called(capsys, trained, photos, "--top", 2)
    assert head == ["file", "class", "probability", "class_2", "probability_2"]
    assert [line[0] for line in lines] == [str(photos / name) for name in
                                           ("0.png", "1.png", "2.png", "more/3.png", "more/4.png")]  # fmt: skip
    for line, classes in zip(lines, found, strict=True):
        assert line[1:] == [text for name, p in classes[:2] for text in (name, f"{p:.4f}")]


def test_patterns_a_file_for_the_answers_and_more_classes_than_there_are(trained, photos, tmp_path, capsys):
    output = tmp_path / "new" / "answers.csv"
    words = [trained, photos / "*.png", photos / "0.png", "--round", 0, "--top", 99, "--output", output]
    assert called(capsys, *words) == []
    head, *lines = csv.reader(output.read_text().splitlines())
    assert len(head) == 21 and [line[0] for line in lines] == [str(photos / f"{n}.png") for n in (0, 1, 2)]
    assert sum(float(p) for p in lines[0][2::2]) == pytest.approx(1, abs=0.001)


def test_images_in_folders_of_classes_are_compared_with_these(trained, photos, capsys):
    """Three images lie in folders named by classes, one of them by the predicted class; two lie elsewhere."""
    student = predict.load_student(trained)
    names = [classes[0][0] for classes in student.classify([photos / f"{number}.png" for number in range(3)])]
    wrong = [next(name for name in student.classes if name != given) for given in names]
    for number, name in enumerate([names[0], wrong[1], wrong[2]]):
        (photos / name).mkdir(exist_ok=True)
        (photos / f"{number}.png").rename(photos / name / f"{number}.png")
    predict.main([str(trained), str(photos)])
    assert capsys.readouterr().err == "33.33% right, of 3 images in folders that have a class's name\n"
    predict.main([str(trained), str(photos / "more")])
    assert capsys.readouterr().err == ""


def test_a_class_is_that_of_the_folder_an_image_is_named_in(tmp_path):
    """Not of the folder that a link leads to."""
    for name in ("3", "7"):
        (tmp_path / name).mkdir()
    (tmp_path / "3" / "a.png").touch()
    (tmp_path / "7" / "b.png").symlink_to(tmp_path / "3" / "a.png")
    lines = [[str(tmp_path / name), "3"] for name in ("3/a.png", "7/b.png", "7/../3/a.png", "3/more/c.png")]
    right: list[bool] = []
    assert list(predict.compared(lines, ["3", "7"], right)) == lines and right == [True, False, True]


def test_images_behind_links_to_folders_are_found(tmp_path):
    """Regression: `rglob` passes them over, where a data set's classes may be such links."""
    (tmp_path / "disk" / "ant").mkdir(parents=True)
    (tmp_path / "disk" / "ant" / "a.png").touch()
    (tmp_path / "disk" / "ant" / "up").symlink_to(tmp_path / "disk")  # leads back
    (tmp_path / "test").mkdir()
    (tmp_path / "test" / "ant").symlink_to(tmp_path / "disk" / "ant")
    (tmp_path / "test" / "bee").symlink_to(tmp_path / "disk" / "ant")
    found = predict.image_files([str(tmp_path / "test")])
    assert [str(path.relative_to(tmp_path)) for path in found] == ["test/ant/a.png", "test/bee/a.png"]


def test_unreadable_files_are_named_together_after_the_others_answers(trained, photos, capsys, monkeypatch):
    monkeypatch.setattr(predict, "BATCH", 2)
    (photos / "broken.png").write_bytes((photos / "0.png").read_bytes()[:40])
    (photos / "text.jpg").write_text("no image")
    with pytest.raises(InputError) as caught:
        predict.main([str(trained), str(photos)])
    assert "2 of the files" in str(caught.value) and "\n" not in str(caught.value)
    assert "broken.png: not a readable image" in str(caught.value) and "text.jpg" in str(caught.value)
    assert capsys.readouterr().out.count(".png") == 5


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "x.png"], "nowhere: no such folder; name a run's"),
        (["{empty}", "x.png"], "no finished round .*let the run finish its first one"),
        (["{run}", "x.png", "--round", "7"], "--round 7: .* has finished the rounds 0, 1, from 0"),
        (["{run}/round_00.pt", "x.png", "--round", "0"], "is a round's file already"),
        (["{run}/state.pt", "x.png"], r"state\.pt: is not a run's round_NN\.pt"),
        (["{run}/config.json", "x.png"], "not readable"),
        (["{run}", "x.png"], r"x\.png: no image there"),
        (["{run}", ""], "^: no image there; name files"),  # an unset "$VAR" is not the current folder
        (["~nobody-of-this-name/run", "x.png"], "run: no such folder"),
        (["{run}", "~nobody-of-this-name"], "~nobody-of-this-name: no image there"),
        (["{run}", "{empty}"], "no image there; name files, a folder or a pattern"),
        (["{run}", "x.png", "--top", "0"], "--top"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name(words, message, trained, tmp_path):
    with pytest.raises(InputError, match=message):
        predict.main([word.format(run=trained, empty=tmp_path) for word in words])


def test_hidden_files_of_a_folder_are_no_images(photos):
    (photos / "more" / "._3.png").write_bytes(b"what macOS puts beside 3.png")
    assert not any(part.startswith(".") for file in predict.image_files([str(photos)]) for part in file.parts)


def test_a_file_whose_name_starts_with_a_tilde_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "~tilde.jpg").write_text("")
    assert predict.image_files(["~tilde.jpg"]) == [Path("~tilde.jpg")]


def test_what_pillow_only_writes_is_no_image_of_a_folder(tmp_path):
    for name in ("a.png", "notes.pdf"):
        (tmp_path / name).touch()
    assert predict.image_files([str(tmp_path)]) == [tmp_path / "a.png"]


def test_no_folder_is_made_for_answers_that_there_are_not(tmp_path, trained):
    with pytest.raises(InputError, match="no image there"):
        predict.main([str(trained), str(tmp_path / "nope.png"), "--output", str(tmp_path / "new" / "answers.csv")])
    assert not (tmp_path / "new").exists()


def test_weights_of_another_network_are_refused(trained, tmp_path):
    content = read_tensors(trained / "round_00.pt")
    torch.save(content | {"record": content["record"] | {"model": "VGG"}}, tmp_path / "round_00.pt")
    with pytest.raises(InputError, match="not the weights of VGG's student for"):
        predict.load_student(tmp_path)
    torch.save(content | {"record": content["record"] | {"model": "LeNet"}}, tmp_path / "round_00.pt")
    with pytest.raises(InputError, match="known pairs: AlexNet, ResNet, VGG"):
        predict.load_student(tmp_path)
    del content["record"]["classes"]
    torch.save(content, tmp_path / "round_00.pt")
    with pytest.raises(InputError, match=r"round_00\.pt: is not a run's round_NN\.pt"):
        predict.load_student(tmp_path)


def test_layers_that_were_changed_since_are_refused(trained, tmp_path, monkeypatch):
    """A ReLU has no weights: with another layer in its place a student's would load, and its accuracy be wrong."""
    made = PAIRS["AlexNet"].student

    def changed(count):
        net = made(count)
        net.classifier[3] = nn.Tanh()
        return net

    monkeypatch.setattr(PAIRS["AlexNet"], "student", changed)
    with pytest.raises(InputError, match=r"round_01\.pt: the network of this code computes something else"):
        predict.load_student(trained)
    content = read_tensors(trained / "round_01.pt")
    del content["record"]["probe"]  # like older files
    torch.save(content, tmp_path / "round_00.pt")
    assert type(predict.load_student(tmp_path).net.classifier[3]) is nn.Tanh


def test_a_run_that_trained_the_teacher_gives_it(tmp_path):
    with torch.device("meta"):
        net = PAIRS["ResNet"].teacher(2).to_empty(device="cpu")
    use = {"classes": ["a", "b"], "image_size": 32, "normalization": augment.NORMALIZATION}
    runs.save_weights(tmp_path / "round_00.pt", net, model="ResNet", network="teacher", **use)
    assert predict.load_student(tmp_path).net.fc.weight.shape == (2, 512)


def test_every_kind_of_picture_can_be_classified(trained, tmp_path):
    """How each kind is read is up to the data sets, which `tests/test_data.py` tests."""
    student = predict.load_student(trained)
    gray = np.random.default_rng(0).integers(0, 256, (9, 9), dtype=np.uint8)
    image = Image.fromarray(gray)
    image.save(tmp_path / "8.png")
    expected = student.read(tmp_path / "8.png")
    assert expected.shape == (64, 64, 3) and torch.equal(
        expected, pixels.resize(torch.from_numpy(np.repeat(gray[None, ..., None], 3, 3)), 64)[0]
    )
    Image.fromarray(gray.astype(np.uint16) * 257).save(tmp_path / "16.png")
    image.convert("RGBA").save(tmp_path / "alpha.png")
    image.convert("RGB").quantize(256).save(tmp_path / "palette.png")
    for name in ("16.png", "alpha.png", "palette.png"):
        assert torch.equal(student.read(tmp_path / name), expected), name


def test_the_middle_of_the_longer_side_is_kept(trained, tmp_path):
    student = predict.load_student(trained)
    wide = np.zeros((64, 100, 3), np.uint8)
    wide[:] = np.arange(100)[None, :, None]
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(wide.transpose(1, 0, 2)).save(tmp_path / "high.png")
    assert student.read(tmp_path / "wide.png")[0, :, 0].tolist() == list(range(18, 82))
    assert student.read(tmp_path / "high.png")[:, 0, 0].tolist() == list(range(18, 82))


def test_a_damaged_table_is_refused_in_a_line(trained, tmp_path):
    shutil.copytree(trained, tmp_path / "run")
    (tmp_path / "run" / "results.csv").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"results\.csv: not a run's results"):
        predict.load_student(tmp_path / "run")


def test_a_teacher_for_all_runs_classifies_too(teacher):
    """The file that `Single --network teacher` puts in teachers/ holds what is needed to use it."""
    found = predict.load_student(teacher)
    assert found.record["network"] == "teacher" and found.net.classifier[-1].out_features == len(found.classes)
    assert found.normalization == augment.NORMALIZATION


def test_answers_go_where_no_file_can_be_replaced(trained, photos, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with ThreadPoolExecutor(1) as pool:
        reading = pool.submit((tmp_path / "pipe").read_text)
        predict.main([str(trained), str(photos / "0.png"), "--output", str(tmp_path / "pipe")])
        assert reading.result(30).splitlines()[0] == "file,class,probability"
    assert (tmp_path / "pipe").is_fifo()
