"""In what order tests are run, so that the processor has work while some of them wait."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

T = TypeVar("T")


def among(waiting: Sequence[T], busy: Sequence[T]) -> Iterator[T]:
    """Yield each of ``waiting`` before a share of ``busy``; a last share has none before it.

    So none is begun when nothing else is left to do meanwhile.
    """
    shares = len(waiting) + len(waiting) // 4 + 1
    for number in range(shares):
        yield from waiting[number : number + 1]
        yield from busy[number::shares]
