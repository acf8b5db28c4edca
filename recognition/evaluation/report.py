"""Format the measured figures as text for a terminal and as Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from recognition.evaluation.conditions import ConditionFigures
from recognition.evaluation.groups import GroupRate
from recognition.evaluation.verification import FMRS

LABELS: Final = {
    "genuine_pairs": "Pairs of one person",
    "impostor_pairs": "Pairs of different people",
    "accuracy": "Accuracy, 10-fold cross-validation",
    "eer": "Equal error rate",
    **{f"tar_at_fmr_{rate:g}": f"TAR at FMR {rate * 100:g} %" for rate in FMRS},
    "persons": "Persons in the gallery, one picture each",
    "probes": "Searches",
    "rank_1": "The right person first",
    "rank_5": "… among the first five",
    "fnir_at_fpir_0.1": "FNIR at FPIR 10 %",
    "fnir_at_fpir_0.01": "FNIR at FPIR 1 %",
    "fmr_at_match": "FMR at the stored threshold",
    "tar_at_match": "TAR at the stored threshold",
    "fpir_at_match": "FPIR at the stored threshold, raised for this gallery",
    "fnir_at_match": "FNIR there",
    "fpir_at_review": "FPIR at the one from which somebody looks closely, raised, too",
    "fnir_at_review": "FNIR there",
}
NOT_SHOWN: Final = """\
Pairs are of pictures taken to show different people, so nothing is said of how often somebody is *not* recognised.
The labels are what annotators saw in a picture, not what people say of themselves. Groups also differ in age, light,
pose and camera, and a pair of one person that nobody knows of counts as a false match."""


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table with the first column left-aligned and the others right-aligned."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows)) + "\n"


def markdown_figures(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a table of the figures of each model, with their 95 % intervals."""
    found = {name for values in figures.values() for name in values}
    rows = [
        [label, *(_figure(name, values) for values in figures.values())]
        for name, label in LABELS.items()
        if name in found
    ]
    return markdown_table(["", *_code(figures)], rows)


def markdown_conditions(
    conditions: Mapping[str, Mapping[str, ConditionFigures]], fmr: float
) -> str:
    """Return a table of the TAR of each model by condition."""
    rate = f"{fmr * 100:g} %"
    headings = ("both so", "one so", "one so, threshold kept (its FMR)")
    header = [
        f"TAR at FMR {rate}",
        *(f"{name}: {how}" for name in _code(conditions) for how in headings),
    ]
    rows = []
    for condition in next(iter(conditions.values())):
        items = [figures[condition] for figures in conditions.values()]
        cells = [
            (
                _percent(i.tar_both),
                _percent(i.tar_one),
                f"{_percent(i.tar_kept)} ({_percent(i.fmr_kept, 2)})",
            )
            for i in items
        ]
        rows.append([condition, *(cell for three in cells for cell in three)])
    return markdown_table(header, rows)


def markdown_groups(
    rates: Mapping[str, Sequence[GroupRate]], thresholds: Mapping[str, float]
) -> str:
    """Return a table of the false-match rate of each group, absolute and relative to everybody's."""
    first = next(iter(rates.values()))
    header = ["Pairs within", "pictures", "pairs"]
    header += [f"`{model}` from {thresholds[model]:g}: FMR" for model in rates]
    rows = []
    for place, group in enumerate(first):
        name = f"{group.column}: {group.value}" if group.value else group.column
        cells = []
        for of_model in rates.values():
            rate, everybody = of_model[place], of_model[0]
            low, high = rate.interval
            times = f", ×{rate.fmr / everybody.fmr:.1f}" if everybody.fmr else ""
            cells.append(f"{_percent(rate.fmr, 2)} ({100 * low:.2f}–{100 * high:.2f}){times}")
        rows.append([name, f"{group.pictures:,}", f"{group.pairs:,}", *cells])
    return f"{markdown_table(header, rows)}\n{NOT_SHOWN}\n"


def text_figures(figures: Mapping[str, Mapping[str, Any]]) -> str:
    """Return a fixed-width table of the figures of each model, with their JSON names."""
    scalars = {
        name: {key: value for key, value in values.items() if not isinstance(value, dict)}
        for name, values in figures.items()
    }
    rows = list(dict.fromkeys(key for values in scalars.values() for key in values))
    width = max(map(len, rows))
    lines = [" " * width + "".join(f"  {name:>24}" for name in figures)]
    for row in rows:
        cells = [_shown(row, values) for values in figures.values()]
        lines.append(f"{row:<{width}}" + "".join(f"  {cell:>24}" for cell in cells))
    return "\n".join(lines)


def without_folders(argument: str) -> str:
    """Remove the folders of this machine from a path, but not those inside a zip archive."""
    return re.sub(r"^.*/(?=[^/]+\.zip/)|^(?!.*\.zip/).*/(?=[^/])", "", argument)


def _shown(name: str, values: Mapping[str, Any]) -> str:
    value = values.get(name)
    if value is None:
        return "-"
    if isinstance(value, float) and "threshold" not in name.replace("tar_at_threshold", ""):
        low, high = values.get("intervals", {}).get(name, (None, None))
        return f"{value:.2%}" + (f" ({100 * low:.1f}–{100 * high:.1f})" if low is not None else "")
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def _figure(name: str, values: Mapping[str, Any]) -> str:
    value = values.get(name)
    if value is None:
        return ""
    if not isinstance(value, float):
        return f"{value:,}"
    if name == "accuracy":
        return f"{_percent(value, 2)} ± {100 * values['accuracy_standard_error']:.2f}"
    if name in values.get("intervals", {}):
        low, high = values["intervals"][name]
        return f"{_percent(value)} ({100 * low:.1f}–{100 * high:.1f})"
    return _percent(value, 2 if "fmr_at" in name else 1)


def _percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f} %"


def _code(names: Iterable[str]) -> list[str]:
    return [f"`{name}`" for name in names]
