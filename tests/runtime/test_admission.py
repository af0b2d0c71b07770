"""Who is let in: as many as can be answered in time, and of each client its share."""

from __future__ import annotations

import time

import pytest

from presplit.runtime.hosted import Overloaded
from presplit.runtime.serving.admission import Book
from presplit.runtime.serving.pays import Pays
from presplit.runtime.serving.waiting import Costs


class Clock:
    """A time that passes only when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def soon(seconds: float) -> float:
    return time.monotonic() + seconds


def test_a_request_is_refused_if_those_ahead_leave_no_time_and_hears_when_to_come_back() -> None:
    book = Book(100, workers=2)
    inside = [book.enter("a", until=soon(1), cost_s=0.05, own_s=0.05) for _ in range(4)]
    with pytest.raises(Overloaded, match="the requests ahead take 100 ms") as caught:
        book.enter("a", until=soon(0.1), cost_s=0.05, own_s=0.05)
    assert 0.04 < caught.value.again_s < 0.2
    assert book.counts == {"admitted": 4, "refused_late": 1}
    book.leaves(inside[0])
    book.leaves(inside[1])
    book.enter("a", until=soon(0.2), cost_s=0.05, own_s=0.05)


def test_where_all_takes_longer_than_expected_less_is_let_in_and_again_more_once_it_does_not() -> (
    None
):
    def admitted(book: Book) -> int:
        """How many that take 10 ms are let in who have 200 ms."""
        places = [book.enter("a", cost_s=1e-9) for _ in range(1)]
        try:
            while len(places) < 100:
                places.append(book.enter("a", until=soon(0.2), cost_s=0.01, own_s=0.01))
        except Overloaded:
            pass
        for place in places:
            book.leaves(place, answered=False)  # at once, which says nothing
        return len(places)

    book = Book(100, workers=1)
    first = admitted(book)
    for _ in range(60):
        place = book.enter("a", cost_s=0.0005, own_s=0.0005)
        time.sleep(0.0015)
        book.leaves(place)
    slower = admitted(book)
    for _ in range(120):
        book.leaves(book.enter("a", cost_s=0.01, own_s=0.01))
    assert 8 < first < 20
    assert slower < 0.7 * first
    assert admitted(book) > first


def test_as_many_as_compute_at_once_are_always_let_in_whatever_is_believed_of_their_time() -> None:
    book = Book(100, workers=2)
    for _ in range(2):
        book.enter("a", until=soon(0.01), cost_s=9.0, own_s=9.0)
    with pytest.raises(Overloaded):
        book.enter("a", until=soon(5), cost_s=9.0, own_s=0.0)
    with pytest.raises(Overloaded):  # nor does one wait so long that tells no deadline
        book.enter("b", until=None, cost_s=9.0)


def test_each_client_has_its_share_and_one_that_was_alone_gives_way() -> None:
    book = Book(16, workers=1)
    greedy = [book.enter("greedy") for _ in range(16)]
    with pytest.raises(Overloaded, match="at its limit"):
        book.enter("greedy")
    others = [book.enter(name) for name in ("x", "y", "z") for _ in range(4)]
    for name in ("x", "greedy"):
        with pytest.raises(Overloaded):
            book.enter(name)
    for place in greedy[:12]:
        book.leaves(place)
    with pytest.raises(Overloaded):
        book.enter("greedy")
    book.leaves(greedy[12])
    book.enter("greedy")
    with pytest.raises(Overloaded):  # what all hold together is bounded too
        book.enter("w", nbytes=2**40)
    for place in (*greedy[13:], *others):
        book.leaves(place)
    assert book.inside == 1


def test_whoever_asks_much_waits_for_itself_and_not_the_others_for_it() -> None:
    book = Book(100, workers=1)
    greedy = [book.enter("greedy", cost_s=0.01) for _ in range(20)]
    other = book.enter("other", until=soon(0.05), cost_s=0.01, own_s=0.01)
    assert sum(place.turn < other.turn for place in greedy) <= 1
    book.begins([greedy[9]])
    # Who was not there takes its turn from now on, and has saved up nothing.
    assert book.enter("late", cost_s=0.01).turn == greedy[9].turn


def test_whoever_is_believed_slow_is_let_in_again_while_others_keep_the_engines_busy() -> None:
    clock = Clock()
    book = Book(100, workers=1, clock=clock)

    def refused() -> bool:
        try:
            place = book.enter("slow", until=clock.now + 0.2, cost_s=0.04, own_s=0.04)
        except Overloaded:
            return True
        book.leaves(place, answered=False)
        return False

    def stalled() -> None:
        """Something stood still, and this client's requests took ten times as long as ever."""
        for _ in range(60):
            place = book.enter("slow", cost_s=0.001, own_s=0.01)
            clock.now += 0.1
            book.leaves(place)

    assert not refused()
    stalled()
    book.enter("other", cost_s=0.01, own_s=0.01)
    assert refused()
    clock.now += 1.1
    book.enter("other", cost_s=0.01, own_s=0.01)
    assert not refused()
    stalled()
    assert refused()  # what is fresh is believed


def test_those_computed_together_are_expected_to_end_together() -> None:
    clock = Clock()
    book = Book(100, workers=1, clock=clock)
    together = [book.enter("a", cost_s=0.01, own_s=0.1) for _ in range(10)]
    book.begins(together)
    clock.now += 0.05
    with pytest.raises(Overloaded, match="the requests ahead take 50 ms"):
        book.enter("a", until=clock.now + 0.06, cost_s=0.01, own_s=0.05)


def test_one_like_that_which_was_refused_is_refused_unread_until_time_has_passed() -> None:
    clock = Clock()
    book = Book(8, workers=1, clock=clock)
    book.knock("a", clock.now)  # with a free engine everybody is looked at
    inside = [book.enter("a", cost_s=0.1, own_s=0.1) for _ in range(3)]
    book.knock("a", clock.now + 0.2)
    with pytest.raises(Overloaded):
        book.enter("a", until=clock.now + 0.2, cost_s=0.1, own_s=0.1)
    with pytest.raises(Overloaded, match="the requests ahead take 300 ms") as caught:
        book.knock("a", clock.now + 0.2)
    assert 0.05 < caught.value.again_s < 0.5
    book.knock("b", clock.now + 0.2)
    book.knock("a", clock.now + 2)
    with pytest.raises(Overloaded):  # one that is far larger tells nothing of the others
        book.enter("a", until=clock.now + 2, cost_s=5, own_s=5)
    clock.now += 0.29
    book.knock("a", clock.now + 0.2)
    inside += [book.enter("a") for _ in range(5)]
    with pytest.raises(Overloaded, match="at its limit"):
        book.knock("a", clock.now + 2)
    assert book.counts["refused_late"] == 3
    assert book.counts["refused_places"] == 1


def test_a_model_that_was_once_slow_is_not_believed_slow_for_ever() -> None:
    clock = Clock()
    costs = Costs(clock)
    costs.note("net", 3.0, 3.0)  # its engine was made meanwhile
    assert costs.of("net").own_s == 3.0
    clock.now += 2
    assert costs.of("net").own_s == 0.0
    costs.note("net", 0.01, 0.02)
    assert costs.of("net") == (0.01, 0.02)
    for _ in range(50):
        costs.note("net", 1.0, 2.0)
    assert costs.of("net").own_s > 1.5
    clock.now += 2  # nobody has been let in since
    assert costs.of("net") == (0.01, 0.02)


def test_a_size_that_was_slow_once_is_tried_again_however_slow_it_was() -> None:
    pays = Pays(4)
    for took_s in (0.02, 0.01):
        pays.took(1, work_s=took_s, clock_s=took_s)
    pays.took(2, work_s=5.0, clock_s=5.0)
    assert pays.size() == 2
    assert pays.seconds(2) == 0.02  # as two alone: so two with 100 ms left are taken together
