"""Draw latency by clients, and search time by gallery size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from faceproject.benchmark.rows import Row


def plot(rows: Sequence[Row], path: Path) -> None:
    """Draw the rows as a PNG: on the left embeddings of a crop, on the right searches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 5), layout="constrained")
    FigureCanvasAgg(figure)
    crops, searches = figure.subplots(1, 2)
    _draw_crops(crops, [row for row in rows if row.step == "crop"])
    _draw_searches(searches, [row for row in rows if row.step == "search"])
    for axes in (crops, searches):
        axes.grid(alpha=0.3, which="both")
        if axes.lines:
            axes.legend()
    figure.savefig(path, dpi=110)


def _draw_crops(axes: Any, rows: Sequence[Row]) -> None:
    for number, model in enumerate(dict.fromkeys(row.model for row in rows)):
        of_model = [row for row in rows if row.model == model]
        clients, color = [row.clients for row in of_model], f"C{number}"
        axes.plot(clients, [row.figures.median_ms for row in of_model], "o-", c=color, label=model)
        axes.fill_between(
            clients,
            [row.figures.median_ms for row in of_model],
            [row.figures.p95_ms for row in of_model],
            color=color,
            alpha=0.15,
        )
        theirs = [(row.clients, row.theirs.median_ms) for row in of_model if row.theirs]
        if theirs:
            axes.plot(*zip(*theirs, strict=True), "s--", c=color, label=f"{model}, the other")
        for row in of_model:
            if row.limit is None:
                continue
            # Of a throughput: so long answers take when so many clients have it.
            limit = row.limit if row.unit == "ms" else 1000 * row.clients / row.limit
            axes.plot([row.clients / 1.2, row.clients * 1.2], [limit] * 2, c=color, lw=3, alpha=0.5)
    axes.set(
        title="An aligned face over HTTP (shaded: to 95 %; bars: limits)",
        xlabel="clients",
        ylabel="ms",
        xscale="log",
        yscale="log",
    )
    ticks = sorted({row.clients for row in rows})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()


def _draw_searches(axes: Any, rows: Sequence[Row]) -> None:
    for clients in dict.fromkeys(row.clients for row in rows):
        found = [(row.size, row.figures.median_ms) for row in rows if row.clients == clients]
        label = "over HTTP, 1 client" if clients == 1 else f"over HTTP, {clients} clients"
        axes.plot(*zip(*found, strict=True), "o-", label=label)
    alone = [row for row in rows if row.clients == 1]
    if alone:
        sizes = [row.size for row in alone]
        axes.plot(sizes, [row.alone for row in alone], "k.-", label="flat FAISS alone")
        axes.plot(sizes, [row.limit for row in alone], "r--", label="limit")
    axes.set(
        title="A search, exact",
        xlabel="vectors in the gallery",
        ylabel="ms",
        xscale="log",
        yscale="log",
    )
