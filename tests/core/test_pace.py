"""How many samples are done at once: what is given is kept to, and what is measured is bounded."""

from __future__ import annotations

import itertools

import pytest

import cnnviz_core.pace
from cnnviz_core.pace import in_pace


@pytest.fixture
def clock(monkeypatch):
    """Let time pass only as the work says."""
    now = [0.0]
    monkeypatch.setattr(cnnviz_core.pace, "perf_counter", lambda: now[0])

    def working(cost):
        def work(start, stop):
            now[0] += cost(stop - start)
            return stop - start

        return work

    return working


def sizes(total, batch_size, work, sample_bytes=1):
    found = list(in_pace(total, batch_size, sample_bytes, work))
    starts = [0, *itertools.accumulate(n for *_, n in found)]
    assert [(a, b) for a, b, _ in found] == list(itertools.pairwise(starts))
    assert starts[-1] == total
    return [n for *_, n in found]


@pytest.mark.parametrize(("total", "size"), [(0, 3), (1, 3), (3, 3), (10, 3), (10, 100)])
def test_a_size_that_is_given_is_kept_to(clock, total, size):
    done = sizes(total, size, clock(lambda n: n))
    assert done == [size] * (total // size) + [total % size] * (total % size > 0)


def test_it_grows_as_long_as_it_pays(clock):
    # A fixed cost of each call, until 32 at once, from where on they hinder each other.
    done = sizes(500, "auto", clock(lambda n: 10 + n + (3 * n if n > 32 else 0)))
    assert done[:5] == [4, 8, 16, 32, 64]
    assert set(done[5:-1]) == {32}


def test_it_stays_small_where_nothing_is_gained(clock):
    assert sizes(30, "auto", clock(lambda n: n)) == [4, 8, 4, 4, 4, 4, 2]


def test_it_is_bounded_by_the_memory_of_the_inputs(clock):
    done = sizes(1000, "auto", clock(lambda n: 1000 + n), sample_bytes=2**22)
    assert max(done) == 32
    assert sizes(3, "auto", clock(lambda n: n), sample_bytes=2**30) == [1, 1, 1]


def test_batches_are_halved_where_the_memory_does_not_suffice(clock):
    done = clock(lambda n: 1000 + n)

    def work(start, stop):
        if stop - start > 10:
            raise MemoryError
        return done(start, stop)

    assert sizes(40, "auto", work) == [4, 8, 8, 8, 8, 4]
    with pytest.raises(MemoryError):
        list(in_pace(40, 16, 1, work))


def test_a_sample_that_is_too_large_is_an_error():
    def work(start, stop):
        raise MemoryError

    with pytest.raises(MemoryError):
        list(in_pace(40, "auto", 1, work))
