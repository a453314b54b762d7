"""A stacked bar chart, laid out here and drawn by the template as plain SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

WIDTH = 960
HEIGHT = 240
LEFT = 64
BOTTOM = 24
GAP = 2
SERIES = 6  # as many colours as the style sheet has; the rest is one series, "other"
TICKS = 4
OTHER = "other"


@dataclass(frozen=True)
class Segment:
    """One coloured part of one bar, in SVG units; `title` is what a pointer over it shows."""

    x: float
    y: float
    width: float
    height: float
    series: int
    title: str


@dataclass(frozen=True)
class Chart:
    """All that the template draws. `ticks` are (y, label); `labels` are (x, label)."""

    segments: list[Segment]
    ticks: list[tuple[float, str]]
    labels: list[tuple[float, str]]
    legend: list[str]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    bottom: int = HEIGHT - BOTTOM


def dollars(nano: float) -> str:
    """Write an amount for an axis: rounded, as only here amounts may be."""
    value = nano / 1e9
    for places in (2, 4, 6, 9):
        if value == 0 or value >= 10**-places * 2:
            return f"${value:,.{places}f}"
    return f"${value:.9f}"


def stacked(slots: Sequence[str], values: Mapping[tuple[int, str], int]) -> Chart:
    """Lay out a chart.

    `slots` are the labels of the bars; `values` maps (index of the slot, series name) to nano-dollars.
    """
    names = _largest(values)
    merged = _merge(values, names)
    highest = max((sum(merged.get((slot, name), 0) for name in names) for slot in range(len(slots))), default=0) or 1
    scale = (HEIGHT - BOTTOM - 12) / highest
    step = (WIDTH - LEFT) / max(1, len(slots))
    segments: list[Segment] = []
    for slot, label in enumerate(slots):
        y = float(HEIGHT - BOTTOM)
        for index, name in enumerate(names):
            amount = merged.get((slot, name), 0)
            if not amount:
                continue
            height = amount * scale
            y -= height
            title = f"{label} · {name}: {dollars(amount)}"
            segments.append(Segment(LEFT + slot * step + GAP / 2, y, step - GAP, height, index, title))
    ticks = [
        (HEIGHT - BOTTOM - highest * part / TICKS * scale, dollars(highest * part / TICKS)) for part in range(TICKS + 1)
    ]
    every = max(1, len(slots) // 8)
    labels = [(LEFT + (slot + 0.5) * step, slots[slot]) for slot in range(0, len(slots), every)]
    return Chart(segments, ticks, labels, names)


def _largest(values: Mapping[tuple[int, str], int]) -> list[str]:
    totals: dict[str, int] = {}
    for (_, name), amount in values.items():
        totals[name] = totals.get(name, 0) + amount
    names = sorted(totals, key=lambda name: (name == OTHER, -totals[name], name))
    return names if len(names) <= SERIES else [*names[: SERIES - 1], OTHER]


def _merge(values: Mapping[tuple[int, str], int], names: Sequence[str]) -> dict[tuple[int, str], int]:
    merged: dict[tuple[int, str], int] = {}
    for (slot, name), amount in values.items():
        shown = name if name in names else OTHER
        merged[slot, shown] = merged.get((slot, shown), 0) + amount
    return merged
