"""A view of resident images, pixel by pixel: gathered, moved, mirrored, normalized."""

import pytest
import torch

from common import augment
from common.augment import View

ROWS3 = [[0, 1, 2], [3, 4, 5], [6, 7, 8]]  # 27 bytes an image: not a multiple of eight
ROWS4 = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11], [12, 13, 14, 15]]  # 48 bytes: one


def image(rows: list[list[int]]) -> torch.Tensor:
    """(S, S, 3) uint8 whose channels are rows, rows + 50 and rows + 100."""
    return torch.stack([torch.tensor(rows) + 50 * channel for channel in range(3)], dim=2).to(torch.uint8)


def shown(images: torch.Tensor, view: View) -> list:
    """The red pixels of each image of a view, as bytes; the other channels must show the same picture."""
    pixels = (augment.pixels(images, view).double() * 127.5 + 127.5).round().long()
    assert torch.equal(pixels[:, 1], pixels[:, 0] + 50) and torch.equal(pixels[:, 2], pixels[:, 0] + 100)
    return pixels[:, 0].tolist()


def test_pixels_become_minus_one_to_one():
    seen = augment.pixels(torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3), View(torch.tensor([0])))
    assert seen.dtype == torch.float32 and seen.shape == (1, 3, 1, 1)
    assert seen.flatten().tolist() == pytest.approx([-1, -0.6, 1])


def test_images_are_gathered_in_the_views_order_and_left_as_they_are():
    images = torch.stack([image(ROWS4), image(ROWS4).flip(0), image(ROWS4).flip(1)])
    before = images.clone()
    seen = augment.pixels(images, View(torch.tensor([2, 0, 2]), torch.tensor([True, False, False])))
    assert seen.shape == (3, 3, 4, 4) and seen.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(seen[0], seen[1])  # the mirror of a mirror
    assert shown(images, View(torch.tensor([2, 0, 1]))) == [[row[::-1] for row in ROWS4], ROWS4, ROWS4[::-1]]
    assert torch.equal(images, before)


@pytest.mark.parametrize("rows", [ROWS3, ROWS4])
def test_mirroring_swaps_left_and_right_of_the_chosen_images(rows):
    view = View(torch.tensor([0, 0, 0]), torch.tensor([False, True, False]))
    assert shown(image(rows)[None], view) == [rows, [row[::-1] for row in rows], rows]


@pytest.mark.parametrize(
    ("offsets", "expected"),
    [
        ((0, 0), ROWS3),
        ((1, 0), [[0, 1, 2], [0, 1, 2], [3, 4, 5]]),  # down; the border is repeated
        ((-1, 0), [[3, 4, 5], [6, 7, 8], [6, 7, 8]]),
        ((0, 1), [[0, 0, 1], [3, 3, 4], [6, 6, 7]]),  # right
        ((0, -2), [[2, 2, 2], [5, 5, 5], [8, 8, 8]]),
        ((1, -1), [[1, 2, 2], [1, 2, 2], [4, 5, 5]]),
        ((-7, 0), [[6, 7, 8], [6, 7, 8], [6, 7, 8]]),  # farther than the image's size
    ],
)
def test_offsets_move_an_image_down_and_right(offsets, expected):
    assert shown(image(ROWS3)[None], View(torch.tensor([0]), None, torch.tensor([offsets]))) == [expected]


def test_each_image_moves_by_its_own_offset_and_is_mirrored_afterwards():
    view = View(torch.tensor([0, 0]), torch.tensor([True, False]), torch.tensor([[0, 1], [-1, 0]]))
    assert shown(image(ROWS3)[None], view) == [
        [[1, 0, 0], [4, 3, 3], [7, 6, 6]],
        [[3, 4, 5], [6, 7, 8], [6, 7, 8]],
    ]


def test_part_of_a_view_is_the_same_view_of_some_images():
    images = torch.stack([image(ROWS3), image(ROWS3).flip(0)])
    view = View(torch.tensor([0, 1, 1, 0]), torch.tensor([True, False, True, False]), torch.tensor([[0, 1]] * 4))
    whole = shown(images, view)
    assert shown(images, view.part(slice(1, 3))) == whole[1:3]
    assert shown(images, view.part(slice(3, 9))) == whole[3:]  # the last batch may be shorter
    assert View(view.index).part(slice(0, 2)).mirrored is None
    moved = view.to(torch.device("meta"))
    assert all(tensor is None or tensor.device.type == "meta" for tensor in moved)
    assert moved.offsets is not None and View(view.index).to("meta").offsets is None


def test_a_view_is_made_where_its_images_are():
    images, view = (
        torch.stack([image(ROWS3)] * 2),
        View(torch.tensor([1]), torch.tensor([True]), torch.tensor([[1, 0]])),
    )
    seen = augment.pixels(images.to("meta"), view.to("meta"))
    assert seen.device.type == "meta" and seen.shape == (1, 3, 3, 3)
