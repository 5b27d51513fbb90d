"""Random streams: each is a function of its root and its names, and nobody touches the global ones."""

from __future__ import annotations

import random

import numpy
import pytest
import torch

from p2pfl.seeds import Seeds


def test_a_stream_is_a_function_of_its_seed_and_names() -> None:
    for draw in (
        lambda seeds: seeds.key(8, "a", 1).hex(),
        lambda seeds: seeds.child("a").key(8, 1).hex(),
        lambda seeds: seeds.numpy("a", 1).random(),
        lambda seeds: torch.rand(1, generator=seeds.torch("a", 1)).item(),
    ):
        assert draw(Seeds.of(7)) == draw(Seeds.of(7))
        assert draw(Seeds.of(7)) != draw(Seeds.of(8))


def test_streams_of_other_names_differ() -> None:
    root = Seeds.of(7)
    names: list[tuple[str | int, ...]] = [(), ("",), ("", ""), ("a",), ("b",), ("a", "b"), ("ab",), (1,), ("1",), (11,)]
    names += [(1, 1), ("a", 1), ("a1",), ("int:1",), (-1,), ("a", ""), ("", "a")]
    assert len({root.key(16, *name) for name in names}) == len(names)
    assert len({root.child(*name).root for name in names}) == len(names)
    assert len({root.numpy(*name).integers(2**63) for name in names}) == len(names)
    assert len({int(torch.randint(2**62, (1,), generator=root.torch(*name))) for name in names}) == len(names)


def test_without_a_seed_every_root_is_new() -> None:
    assert len({Seeds.of(None).root for _ in range(10)}) == 10
    assert all(len(Seeds.of(seed).root) == 32 for seed in (None, 0, -1, 10**30))


def test_a_longer_key_begins_with_the_shorter_one() -> None:
    assert Seeds.of(1).key(64, "x")[:16] == Seeds.of(1).key(16, "x")


def test_streams_are_the_same_on_every_machine() -> None:
    root = Seeds.of(7)
    assert root.root.hex()[:16] == "06c34256bd9c1d31"
    assert root.key(8, "peer", 3).hex() == "b6b32674b5dc6169"
    assert root.child("shared").root.hex()[:16] == "279e412bbdc38c63"
    assert root.torch("x").initial_seed() == 84512288712618762
    assert root.numpy("x").bit_generator.state["state"]["state"] % 2**32 == 2895185325


def test_global_random_state_is_left_alone() -> None:
    before = torch.get_rng_state(), numpy.random.get_state()[1].tolist(), random.getstate()  # type: ignore[index]
    root = Seeds.of(None)
    torch.rand(3, generator=root.torch("x"))
    root.numpy("x").random(3)
    root.key(3)
    assert torch.equal(torch.get_rng_state(), before[0])
    assert numpy.random.get_state()[1].tolist() == before[1]  # type: ignore[index]
    assert random.getstate() == before[2]


def test_streams_of_noise_are_seeded_by_more_than_32_bits_and_are_normal() -> None:
    """torch's own seeding on the CPU takes 32 bits: two seeds that differ above them give one stream."""
    same = [torch.randn(5, generator=torch.Generator().manual_seed(seed)) for seed in (5, 5 + (7 << 32))]
    assert torch.equal(*same)
    words = {Seeds.of(1).noise("n", at).get_state()[24 : 24 + 8 * 624].numpy().tobytes() for at in range(50)}
    assert len(words) == 50
    drawn = torch.randn(200_000, generator=Seeds.of(1).noise("n", 3))
    assert torch.equal(drawn, torch.randn(200_000, generator=Seeds.of(1).noise("n", 3)))
    assert not torch.equal(drawn, torch.randn(200_000, generator=Seeds.of(1).torch("n", 3)))
    assert abs(float(drawn.mean())) < 0.01
    assert float(drawn.std()) == pytest.approx(1, abs=0.01)
    assert float(drawn.abs().lt(1.959964).double().mean()) == pytest.approx(0.95, abs=0.003)


def test_who_changes_any_of_the_words_draws_other_numbers() -> None:
    """So the words lie where they are written."""
    drawn = []
    for word in (None, 1, 300, 623):
        generator = Seeds.of(1).noise("n")
        state = generator.get_state()
        if word is not None:
            state[24 + 8 * word] ^= 1
        generator.set_state(state)
        drawn.append(torch.rand(2000, generator=generator))
    assert not any(torch.equal(drawn[0], other) for other in drawn[1:])
