"""A few hundred mutated pictures in every run; `python -m tests.fuzz_pictures` takes 20,000."""

from __future__ import annotations

from tests import fuzz_pictures


def test_mutated_pictures_are_read_or_refused() -> None:
    report = fuzz_pictures.run(300, 20, fuzz_pictures.samples())

    assert report.failures == []
    assert min(report.outcomes["read"], report.outcomes["refused"]) > 30
    assert report.growth < fuzz_pictures.GROWTH_MIB
