"""A small part of `script/fuzz` in every run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests import fuzz
from tests.chaos import Server
from tests.fuzz import Report, Slice

SEED = 20
PATIENCE = 60.0  # other tests may keep this machine busy


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[Server, Report]]:
    """One server for all tests of this file, with its report."""
    report = Report()
    with fuzz.served(report, PRELOAD_MODELS="") as server:
        yield server, report
    assert report.failures == []


def test_mutated_pictures_are_read_or_refused() -> None:
    report = fuzz.fuzz_decoder(Slice(SEED, 300), fuzz.samples())

    assert report.failures == []
    assert min(report.outcomes["read"], report.outcomes["refused"]) > 30
    assert report.growth < fuzz.GROWTH_MIB


def test_mutated_pictures_are_answered(served: tuple[Server, Report]) -> None:
    report = Report(PATIENCE)

    fuzz.fuzz_pictures(Slice(SEED, 120), fuzz.samples(), served[0], report)

    assert report.failures == []
    assert report.outcomes["/api/embedding 200"] and report.outcomes["/api/milvus/insert 200"]
    assert report.growth < fuzz.GROWTH_MIB


def test_odd_zips_are_imported_or_refused(served: tuple[Server, Report]) -> None:
    report = Report(PATIENCE)

    fuzz.fuzz_zips(Slice(SEED, 24), served[0], report)

    assert report.failures == []
    assert report.outcomes["/people/import confirm"] and report.outcomes["/people/import refused"]


def test_damaged_requests_are_answered(served: tuple[Server, Report]) -> None:
    report = Report(PATIENCE)

    fuzz.fuzz_requests(Slice(SEED, 100), served[0], report)

    assert report.failures == []
    assert report.outcomes["200"] and report.outcomes["400"]


def test_slow_connections_stop_nobody(served: tuple[Server, Report]) -> None:
    report = Report(PATIENCE)

    fuzz.load_with_connections(250, 2, served[0], report)

    assert report.failures == []
    assert report.outcomes["/api/milvus/search 200"]


@pytest.mark.django_db(transaction=True)
def test_odd_folders_are_enrolled_or_refused(weights: str) -> None:
    report = fuzz.fuzz_folders(Slice(SEED, 24))

    assert report.failures == []
    assert report.outcomes["enrolled"]
