"""Batches that halve where memory runs out: every item is worked on once, in order, and the smaller size stays."""

from __future__ import annotations

import logging

import pytest
import torch

from patchword.models.batching import Batches, within

ERRORS = [
    MemoryError(),
    torch.OutOfMemoryError("CUDA out of memory"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"),
]


class Work:
    """Squares of the items of a batch; fails above a size."""

    def __init__(self, fits: int, error: BaseException) -> None:
        self.fits, self.error, self.sizes = fits, error, list[int]()

    def __call__(self, start: int, stop: int) -> list[int]:
        self.sizes.append(stop - start)
        if stop - start > self.fits:
            raise self.error
        return [item**2 for item in range(start, stop)]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("fits", [1, 2, 3, 5, 100])
@pytest.mark.parametrize("size", [1, 7, 16])
def test_every_item_is_worked_on_in_order(fits: int, size: int, error: BaseException) -> None:
    found = Batches().run(Work(fits, error), count=20, size=size, what="items")
    assert [square for batch in found for square in batch] == [item**2 for item in range(20)]
    assert max(len(batch) for batch in found) <= min(fits, size)


def test_the_smaller_size_stays_and_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    batches, work = Batches(), Work(3, MemoryError())
    with caplog.at_level(logging.WARNING):
        batches.run(work, count=8, size=8, what="crops")
        assert work.sizes == [8, 4, 2, 2, 2, 2]
        work.sizes.clear()
        batches.run(work, count=5, size=8, what="crops")
        assert work.sizes == [2, 2, 1]
        work.sizes.clear()
        batches.run(work, count=3, size=8, what="prompts")  # other items have a size of their own
        assert work.sizes == [3]
    assert [record.getMessage() for record in caplog.records] == [
        "memory does not suffice for 8 crops at once; going on with fewer"
    ]


@pytest.mark.parametrize("error", [*ERRORS, RuntimeError("shapes differ"), ValueError("no")], ids=str)
def test_what_smaller_batches_cannot_help_is_raised(error: Exception) -> None:
    work = Work(0, error)
    with pytest.raises(type(error)):
        Batches().run(work, count=4, size=4, what="items")
    helped = isinstance(error, MemoryError | torch.OutOfMemoryError) or "Allocator" in str(error)
    assert work.sizes == ([4, 2, 1] if helped else [4])


def test_nothing_to_do() -> None:
    assert Batches().run(Work(1, MemoryError()), count=0, size=4, what="items") == []


def test_whose_items_are_in_a_batch() -> None:
    counts = [3, 0, 2, 4]
    owners = [(owner, item) for owner, count in enumerate(counts) for item in range(count)]
    for start in range(10):
        for stop in range(start, 10):
            found = within(counts, start=start, stop=stop)
            assert [(owner, item) for owner, first, last in found for item in range(first, last)] == owners[start:stop]
            assert all(first < last for _, first, last in found)
