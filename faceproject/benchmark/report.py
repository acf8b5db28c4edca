"""The measured figures as lines of text."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from faceproject.benchmark.rows import Row
from recognition.benchmark import Timing

WIDTH: Final = 58  # characters of the label column
WIDTHS: Final = (10, 10, 9, 6, 11, 7, 11, 5, 11, 6)  # of the others


def timing_heading() -> str:
    columns = [_("median"), _("best"), _("a second")]
    return _line(_("In this process, step by step"), columns)


def timing_line(timing: Timing, *, best: bool = True) -> str:
    """Return the line of a step; without its best time below the heading of the rows."""
    columns = [f"{timing.median_ms:.1f} ms", f"{timing.best_ms:.1f} ms" if best else ""]
    return _line(_timing_label(timing), [*columns, f"{timing.per_second:.1f}"])


def row_heading(other: str = "") -> str:
    columns = [_("median"), "95 %", _("a second"), _("cores"), _("alone"), _("ratio"), _("limit")]
    if other:
        columns += ["", _("the other"), _("times")]
    return _line(_("Over HTTP"), columns)


def row_line(row: Row) -> str:
    figures = row.figures
    columns = [
        f"{figures.median_ms:.1f} ms",
        f"{figures.p95_ms:.1f} ms",
        f"{figures.per_second:.1f}",
        _number(row.cores),
        _with_unit(row.alone, row.unit),
        _number(row.ratio, 2),
        _with_unit(row.limit, row.unit),
        _verdict(row),
    ]
    if row.theirs:
        columns += [_with_unit(row.their_value, row.unit), _number(row.times_theirs)]
    elif row.their_failure:
        columns += ["–", "–"]
    return _line(_row_label(row), columns)


def _line(label: str, columns: list[str]) -> str:
    cells = (f" {text:>{width}}" for text, width in zip(columns, WIDTHS, strict=False))
    return f"{label:<{WIDTH}}{''.join(cells)}".rstrip()


def _verdict(row: Row) -> str:
    if row.within is None:
        return ""
    if row.within:
        return _("ok")
    return _("under") if row.unit == "/s" else _("over")


def notes(rows: list[Row]) -> Iterator[str]:
    """Yield what the table does not say: memory, refusals, limits that are not kept."""
    for row in rows:
        if row.megabytes is not None:
            text = _("%(label)s: %(megabytes).0f MB of memory at the most (limit %(limit).0f)")
            numbers = {"megabytes": row.megabytes, "limit": row.limit or 0.0}
            yield text % (numbers | {"label": _row_label(row)})
        other = _("the other")
        others = f"{_row_label(row)} ({other})"
        for label, figures in ((_row_label(row), row.figures), (others, row.theirs)):
            if figures and figures.refused:
                text = _("%(label)s: %(refused)d of %(all)d requests were refused: %(reason)s")
                asked = figures.answers + figures.refused
                yield text % {
                    "label": label,
                    "refused": figures.refused,
                    "all": asked,
                    "reason": figures.refusal,
                }
        if row.their_failure:
            yield f"{_row_label(row)}: {row.their_failure}"


def _number(value: float | None, digits: int = 1) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _with_unit(value: float | None, unit: str) -> str:
    if value is None:
        return ""
    return f"{value:.0f} MB" if unit == "MB" else f"{value:.1f} {unit}"


def _timing_label(timing: Timing) -> str:
    match timing.step:
        case "decode":
            text = _("decode a crop and measure its quality")
        case "detect":
            text = _("find the faces of a picture of %(size)d pixels")
        case "detect_largest":
            text = _("find the largest face of a picture of %(size)d pixels")
        case "align":
            text = _("align a face")
        case "network":
            text = ngettext(
                "%(model)s: the network alone, %(size)d face",
                "%(model)s: the network alone, %(size)d faces at once",
                timing.size or 0,
            )
        case "embed":
            text = ngettext(
                "%(model)s: embed %(size)d face",
                "%(model)s: embed %(size)d faces at once",
                timing.size or 0,
            )
        case "picture_to_embedding":
            text = _("%(model)s: from a file to its embedding")
        case "faiss":
            text = _("search among %(size)d vectors, flat FAISS alone")
        case _:
            text = _("search among %(size)d vectors")
    return text % {"size": timing.size, "model": timing.model}


def _row_label(row: Row) -> str:
    match row.step:
        case "crop":
            text = _("%(model)s: an aligned face")
        case "batch":
            text = _("%(model)s: %(size)d aligned faces in a request")
        case "photo":
            text = _("%(model)s: a photo of %(size)d pixels")
        case "large":
            text = _("photos of %(megapixels)g megapixels")
        case "search":
            text = _("search by a vector among %(size)d")
        case _:
            text = _("search by an aligned face among %(size)d")
    label = text % {
        "model": row.model,
        "size": row.size,
        "megapixels": (row.size or 0) / 1e6,
    }
    clients = ngettext("%(count)d client", "%(count)d clients", row.clients)
    return f"{label}, {clients % {'count': row.clients}}"
