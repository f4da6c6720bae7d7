"""A seed's numbers depend on the seed and on their purpose, and stay the same from version to version."""

import pytest
import torch
from torch import nn

from common.seeds import derive, generator, initialization


def test_a_derived_seed_is_the_one_that_finished_runs_were_made_with():
    assert derive(2023, "order", 0, 1) == 8936108778557242114  # of SHA-256("2023/order/0/1")
    assert torch.randint(0, 1000, (4,), generator=generator(2023, "order", 0, 1)).tolist() == [346, 991, 586, 238]


def test_seed_and_purpose_and_each_number_make_a_seed_of_their_own():
    purposes = [
        (1, "a", 0, 0),
        (2, "a", 0, 0),
        (1, "b", 0, 0),
        (1, "a", 1, 0),
        (1, "a", 0, 1),
        (1, "a", 0),
        (11, "a", 0),
    ]
    seeds = [derive(*purpose) for purpose in purposes]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**63 for seed in seeds)  # what manual_seed accepts


def test_a_generator_draws_on_the_cpu_whatever_was_drawn_before():
    first = torch.rand(3, generator=generator(1, "a"))
    torch.rand(7)
    again = generator(1, "a")
    assert again.device.type == "cpu" and torch.equal(torch.rand(3, generator=again), first)
    state = torch.get_rng_state()
    torch.rand(3, generator=generator(1, "b"))
    assert torch.equal(torch.get_rng_state(), state)  # no other numbers change


def test_initial_weights_have_a_stream_of_their_own():
    def weights(*purpose):
        with initialization(*purpose):
            return nn.Linear(3, 3).weight

    torch.manual_seed(0)
    state = torch.get_rng_state()
    first = weights(5, "student", 0)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert torch.equal(weights(5, "student", 0), first)
    assert not torch.equal(weights(5, "student", 1), first) and not torch.equal(weights(6, "student", 0), first)


def test_the_common_stream_goes_on_after_a_layer_that_cannot_be_made():
    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError), initialization(5, "student"):
        torch.rand(1)
        _ = 1 / 0
    assert torch.equal(torch.get_rng_state(), state)
