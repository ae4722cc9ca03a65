"""What was measured, as medians and ratios. Pure: no clock, no process, no file."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Figure", "Target", "as_json", "differences", "table", "verdicts"]


@dataclass(frozen=True)
class Figure:
    """One thing that was measured some times: ``samples`` are in ``unit``."""

    name: str
    unit: str
    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.samples)

    @property
    def p90(self) -> float:
        """The smallest sample that nine of ten are not above (nearest rank)."""
        return sorted(self.samples)[math.ceil(0.9 * len(self.samples)) - 1]


@dataclass(frozen=True)
class Target:
    """A ratio of the medians of two figures, and what it should be: at ``most`` or at ``least``."""

    text: str
    numerator: str
    denominator: str
    most: float | None = None
    least: float | None = None

    def met(self, ratio: float) -> bool:
        above = self.least is None or ratio >= self.least
        return above and (self.most is None or ratio <= self.most)


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(figures: Iterable[Figure]) -> list[str]:
    """A Markdown table: median, p90, min, max and n of each figure."""
    lines = ["| figure | unit | median | p90 | min | max | n |", "|---|---|---|---|---|---|---|"]
    for figure in figures:
        numbers = (figure.median, figure.p90, min(figure.samples), max(figure.samples))
        cells = [figure.name, figure.unit, *map(_number, numbers), str(len(figure.samples))]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def verdicts(targets: Sequence[Target], figures: Mapping[str, Figure]) -> list[str]:
    """A Markdown table of the targets whose figures were measured: the ratio, and whether it is met."""
    lines = ["| target | wanted | measured | met |", "|---|---|---|---|"]
    for target in targets:
        if target.numerator in figures and target.denominator in figures:
            ratio = figures[target.numerator].median / figures[target.denominator].median
            wanted = f"≤ {target.most:g}" if target.most is not None else f"≥ {target.least:g}"
            lines.append(
                f"| {target.text} | {wanted} | {ratio:.3g} | {'yes' if target.met(ratio) else 'no'} |"
            )
    return lines


def differences(figures: Iterable[Figure], earlier: Mapping[str, float], tolerance: float) -> list[str]:
    """A line for each median that differs from its ``earlier`` one by more than ``tolerance`` of that."""
    return [
        f"{figure.name}: {_number(figure.median)} {figure.unit}, and {_number(earlier[figure.name])} before"
        for figure in figures
        if figure.name in earlier
        and abs(figure.median - earlier[figure.name]) > tolerance * abs(earlier[figure.name])
    ]


def as_json(figures: Iterable[Figure]) -> list[dict[str, Any]]:
    """Each figure with its samples, ready for :func:`json.dumps`."""
    return [
        {
            "name": figure.name,
            "unit": figure.unit,
            "median": figure.median,
            "p90": figure.p90,
            "min": min(figure.samples),
            "max": max(figure.samples),
            "n": len(figure.samples),
            "samples": list(figure.samples),
        }
        for figure in figures
    ]
