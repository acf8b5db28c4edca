"""Do the work of later items in threads while earlier ones are used, for long loops over pictures.

    for crop in in_order(look_at, pictures):  # some pictures are looked at ahead
        store(crop)

Decoding, detection and the networks release the GIL, so all cores are busy while the loop itself
waits for the disk or for SQL. What runs ahead must neither write anything nor use the database.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from types import TracebackType
from typing import Any, Final, TypeVar

from django.utils.translation import get_language, override

from recognition.threads import available_cores

Item = TypeVar("Item")
Result = TypeVar("Result")

AHEAD: Final = 32  # items that `in_order` has begun and not yielded, at the most


class Crew:
    """A thread for each core, until the block ends. Threads start when there is work.

    The work has the context of who begins it: the request's id in the log, its trace, and the language,
    which Django keeps for each thread.
    """

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(available_cores(), "ahead")

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Wait for what runs, and drop what has not begun."""
        self._pool.shutdown(cancel_futures=True)

    def begin(self, work: Callable[..., Result], *args: Any) -> Future[Result]:
        """Put the call into the queue of the threads, first come, first served."""
        context = copy_context()
        return self._pool.submit(context.run, _in_language, get_language(), work, *args)


def _in_language(language: str | None, work: Callable[..., Result], *args: Any) -> Result:
    with override(language):
        return work(*args)


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], ahead: int = AHEAD
) -> Iterator[Result]:
    """Yield `work(item)` for each item, in order; at most `ahead` items are begun before their turn.

    An exception of the work is raised in place of its result.
    """
    begun: deque[Future[Result]] = deque()
    with Crew() as crew:
        for item in items:
            begun.append(crew.begin(work, item))
            if len(begun) > ahead:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def one_ahead(items: Iterable[Item]) -> Iterator[Item]:
    """Yield the items, each after the next one was made, so that the work that it began goes on."""
    iterator = iter(items)
    for item in iterator:
        for following in iterator:
            yield item
            item = following
        yield item
