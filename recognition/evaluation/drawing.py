"""Plots of the measured figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from recognition.evaluation.conditions import ConditionFigures
from recognition.evaluation.verification import Verification

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEAST_FMR: Final = 1e-5
LEAST_RATE: Final = 1e-3  # lower end of the axis of the false non-match rate
POINTS: Final = 400  # points of a curve


def plot(
    results: Mapping[str, Verification],
    path: Path,
    thresholds: Mapping[str, Mapping[str, float]] | None = None,
    conditions: Mapping[str, Mapping[str, ConditionFigures]] | None = None,
) -> None:
    """Draw ROC and DET curves, histograms of the similarities, and bars by condition, as a PNG.

    `thresholds` are similarities to mark in the histogram of each result, `conditions` the figures
    of each model by condition. Both have the keys of `results`.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = 2 if conditions else 1
    figure = Figure(figsize=(6 * (2 + len(results)), 5 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    whole, *lower = figure.subfigures(rows, 1, squeeze=False)[:, 0]
    roc, det, *histograms = whole.subplots(1, 2 + len(results))
    for (name, result), axes in zip(results.items(), histograms, strict=True):
        rates, found = _curve(result)
        roc.plot(rates, found, label=name)
        det.plot(rates, np.maximum(1 - found, LEAST_RATE / 10), label=name)
        _draw_histogram(axes, name, result, (thresholds or {}).get(name, {}))
    rate = {"xscale": "log", "xlim": (LEAST_FMR, 1), "xlabel": "false-match rate (FMR)"}
    roc.set(title="ROC", ylim=(0, 1.01), ylabel="true accept rate (TAR)", **rate)
    det.set(title="DET", yscale="log", ylim=(LEAST_RATE, 1), ylabel="false non-match rate", **rate)
    for axes in (roc, det):
        axes.grid(alpha=0.3)
        axes.legend()
    if conditions:
        _draw_bars(lower[0].subplots(), conditions)
    figure.savefig(path, dpi=110)


def _curve(result: Verification) -> tuple[np.ndarray, np.ndarray]:
    """Return FMR and TAR at up to `POINTS` thresholds, evenly spaced in the logarithm of the FMR."""
    impostors = np.sort(result.similarities[~result.same])[::-1]
    genuine = np.sort(result.similarities[result.same])
    places = np.unique(np.geomspace(1, len(impostors), POINTS).astype(int)) - 1
    reached = len(genuine) - np.searchsorted(genuine, impostors[places])
    return (places + 1) / len(impostors), reached / len(genuine)


def _draw_histogram(
    axes: Axes, name: str, result: Verification, thresholds: Mapping[str, float]
) -> None:
    scores, same = result.similarities, result.same
    bins = np.linspace(scores.min(), scores.max(), 60).tolist()
    # Densities, because there are many more pairs of different people than of the same person.
    axes.hist(scores[~same], bins, density=True, alpha=0.6, label="different people")
    axes.hist(scores[same], bins, density=True, alpha=0.6, label="same person")
    for label, value in thresholds.items():
        axes.axvline(value, linestyle="--", color="black", alpha=0.6)
        axes.text(value, axes.get_ylim()[1], f"{label} ", rotation=90, ha="right", va="top")
    axes.set(title=name, xlabel="cosine similarity", ylabel="density of pairs")
    axes.legend()


def _draw_bars(axes: Any, conditions: Mapping[str, Mapping[str, ConditionFigures]]) -> None:
    width = 0.8 / len(conditions)
    for number, (model, figures) in enumerate(conditions.items()):
        places = np.arange(len(figures)) + (number - (len(conditions) - 1) / 2) * width
        bars = axes.bar(places, [item.tar_one for item in figures.values()], width, label=model)
        axes.bar_label(bars, fmt=lambda value: f"{value:.0%}", fontsize=8)
        axes.set_xticks(np.arange(len(figures)), list(figures))
    axes.set(ylim=(0, 1.05), ylabel="TAR", title="One picture of each pair in this condition")
    axes.grid(axis="y", alpha=0.3)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1))  # beside the bars
