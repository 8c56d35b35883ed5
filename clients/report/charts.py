"""A curve as a small picture, or as a line of characters."""

from __future__ import annotations

import base64
import io

from clients.report.content import Series

_STEPS = "▁▂▃▄▅▆▇█"
_INCHES = (7.2, 1.35)
_DPI = 200
_INK, _MARK, _QUIET = "#2456a6", "#c2410c", "#666666"


def sparkline(series: Series) -> str:
    """One character for each day, higher for more."""
    if not series.values:
        return ""
    low, high = min(series.values), max(series.values)
    steps = len(_STEPS) - 1
    return "".join(_STEPS[round((value - low) / (high - low) * steps) if high > low else 0] for value in series.values)


def picture(series: Series) -> str:
    """A PNG as a `data:` address, so that a file of one's own is not needed; nothing is fetched."""
    from matplotlib.figure import Figure  # not pyplot, which keeps a state for the whole process

    figure = Figure(figsize=_INCHES, dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    days = [day.toordinal() for day in series.days]
    values = [float(value) for value in series.values]  # a picture's heights; the numbers stand in the text
    axes.plot(days, values, color=_INK, linewidth=1.2)
    axes.scatter(
        [days[place] for place in series.marked],
        [values[place] for place in series.marked],
        color=_MARK,
        s=14,
        zorder=3,
    )
    ends = sorted({0, len(days) // 2, len(days) - 1}) if days else []
    axes.set_xticks([days[place] for place in ends], [series.days[place].isoformat() for place in ends])
    axes.set_yticks([])  # every number of a report is one that was answered; an axis would add its own
    axes.set_ylim(bottom=min(0.0, *values) if values else 0.0)
    axes.tick_params(labelsize=7, colors=_QUIET, length=2)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    target = io.BytesIO()
    figure.savefig(target, format="png")
    return f"data:image/png;base64,{base64.b64encode(target.getvalue()).decode('ascii')}"
