"""The benchmark's figure: every layer under the roofline, and how it compares with PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .results import Record, Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREEN, GREY = "#0072b2", "#d55e00", "#009e73", "#555555"
STYLES = {"forward": (BLUE, "o"), "grad_input": (GREEN, "^"), "grad_weight": ("#e69f00", "s")}

# Names that fit under the bars, and lines that fit above the lowest of them.
MOST_NAMES = 45
MOST_LOSSES = 16


def save(results: Results, path: Path) -> None:
    """Draw the figure: a roofline with one point for each layer and map, and bars of the ratios.

    The bars compare with PyTorch, or else with the first peer that took part, and with the CUDA
    path, if any of them did. The ending of ``path`` chooses the format.
    """
    # Not pyplot, which would choose a window system and keep the figure for ever.
    from matplotlib.figure import Figure

    compared = [name for name in results.compared if results.mean_ratio(name) is not None]
    peers = [name for name in compared if name in results.peers]
    shown = ["torch"] if "torch" in peers else peers[:1]
    shown += [name for name in compared if name in results.paths]
    figure = Figure(figsize=(12, 5.5 + 4.5 * len(shown)), dpi=120, layout="constrained")
    machine = results.machine
    figure.suptitle(
        f"fastconv on {machine.cpu}, {machine.threads} threads, {results.dtypes}",
        fontsize=14,
        fontweight="bold",
    )
    heights = (1.1, *[1.0] * len(shown))
    top, *others = figure.subplots(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    _roofline(top, results)
    for ax, name in zip(others, shown, strict=True):
        _ratios(ax, results, name)
    figure.savefig(path)


def _roofline(ax: "Axes", results: Results) -> None:
    machine = results.machine
    intensity = np.array([r.flops / r.bytes for r in results.records])
    speed = np.array([r.gflops for r in results.records])
    maps = np.array([r.map_name for r in results.records])
    ridge = machine.peak / machine.bandwidth
    ends = np.array([intensity.min() / 2, ridge, max(intensity.max(), ridge) * 2])
    roof = np.minimum(machine.peak, machine.bandwidth * ends) / 1e9
    ax.plot(ends, roof, color=GREY, linewidth=2)
    ax.fill_between(ends, roof, 100 * roof.max(), color=GREY, alpha=0.08, linewidth=0)
    for name in results.maps:
        colour, marker = STYLES[name]
        here = maps == name
        ax.scatter(
            intensity[here],
            speed[here],
            s=34,
            marker=marker,
            color=colour,
            alpha=0.75,
            linewidths=0,
            label=name,
        )
    ax.set(xscale="log", yscale="log", xlim=(ends[0], ends[-1]))
    least = min(speed.min() / 2, roof.max() / 50)
    ax.set_ylim(max(least, 1e-3), 3 * max(roof.max(), speed.max()))
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_title(
        f"One point for each layer and map; roofline: {machine.peak / 1e9:.0f} GFLOP/s of"
        f" multiply-adds, {machine.bandwidth / 1e9:.0f} GB/s of memory",
        loc="left",
    )
    ax.text(
        0.015,
        0.94,
        "in grey: only with fewer operations than the definition's",
        transform=ax.transAxes,
        va="top",
        color=GREY,
        fontsize=9,
    )
    ax.set(xlabel="operations for each byte of input, filters and output", ylabel="GFLOP/s")
    ax.legend(loc="lower right", frameon=False)
    _plain(ax)


def _ratios(ax: "Axes", results: Results, peer: str) -> None:
    compared = [(ratio, r) for r in results.records if (ratio := r.ratio(peer)) is not None]
    compared.sort(key=lambda pair: pair[0])
    ratios = [ratio for ratio, _ in compared]
    colours = [ORANGE if ratio < 1 else BLUE for ratio in ratios]
    # Bars grow from 1, up and down: equal factors have equal lengths.
    heights = [ratio - 1 for ratio in ratios]
    ax.bar(range(len(ratios)), heights, bottom=1, width=0.85, color=colours)
    ax.axhline(1, color=GREY, linewidth=1)
    mean = results.mean_ratio(peer)
    lost = sum(ratio < 1 for ratio in ratios)
    ax.set_title(
        f"{peer}'s best time / ours: geometric mean {mean:.2f},"
        f" {len(ratios) - lost} faster, {lost} slower",
        loc="left",
    )
    ax.set_yscale("log", base=2)
    ax.yaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    low, high = min(*ratios, 1 / 1.2), max(*ratios, 1.2)
    ax.set(ylim=(low / 1.15, high * 1.15), xlim=(-0.8, len(ratios) - 0.2), ylabel="times as fast")
    _label_bars(ax, [record for _, record in compared], ratios)
    _plain(ax)
    ax.grid(False, axis="x")


def _label_bars(ax: "Axes", records: list[Record], ratios: list[float]) -> None:
    """Name every bar, or, where there are too many, list the losses where the bars are low."""
    names = [f"{record.layer} {record.map_name}" for record in records]
    if len(names) <= MOST_NAMES:
        places = range(len(names))
        ax.set_xticks(places, names, rotation=55, ha="right", rotation_mode="anchor", fontsize=7)
        return
    ax.set_xticks([])
    ax.set_xlabel(f"{len(names)} layers and maps")
    lost = [f"{ratio:.2f}x  {name}" for ratio, name in zip(ratios, names, strict=True) if ratio < 1]
    more = len(lost) - MOST_LOSSES
    if more > 0:
        lost[MOST_LOSSES:] = [f"and {more} more"]
    ax.text(
        0.015,
        0.96,
        "\n".join(lost),
        transform=ax.transAxes,
        va="top",
        color=ORANGE,
        fontsize=8,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 2},
    )


def _plain(ax: "Axes") -> None:
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, which="major", color=GREY, alpha=0.2, linewidth=0.6)
    ax.set_axisbelow(True)
