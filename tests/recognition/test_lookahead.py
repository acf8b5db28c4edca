import threading
from contextvars import ContextVar

import pytest
from django.utils.translation import get_language, override

from recognition.lookahead import Crew, in_order, one_ahead

SECONDS = 60


def test_results_come_in_order_and_later_work_goes_on_meanwhile():
    second = threading.Event()

    def work(number: int) -> int:
        if number == 1:
            second.set()
        if number == 0:
            assert second.wait(SECONDS)
        return number * 10

    assert list(in_order(work, range(5))) == [0, 10, 20, 30, 40]


def test_no_more_is_begun_ahead_than_asked_for():
    taken = []
    results = in_order(lambda number: number, (taken.append(n) or n for n in range(10)), ahead=2)
    assert next(results) == 0 and taken == [0, 1, 2]
    assert next(results) == 1 and taken == [0, 1, 2, 3]


def test_error_is_raised_in_its_turn_and_ends_the_rest():
    done = []

    def work(number: int) -> int:
        if number == 2:
            raise ValueError("two")
        done.append(number)
        return number

    results = in_order(work, range(100), ahead=5)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert len(done) < 10
    assert not [t for t in threading.enumerate() if t.name.startswith("ahead")]


def test_work_has_the_context_of_who_began_it():
    name = ContextVar("name")
    name.set("request 7")
    with Crew() as crew:
        assert crew.begin(name.get).result(SECONDS) == "request 7"


def test_work_sees_the_language_of_who_asked():
    with override("pt-br"), Crew() as crew:
        assert crew.begin(get_language).result(SECONDS) == "pt-br"


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_next_item_is_made_before_the_one_in_use(count):
    made = []
    for number in one_ahead(made.append(n) or n for n in range(count)):
        assert made == list(range(min(number + 2, count)))
    assert made == list(range(count))
