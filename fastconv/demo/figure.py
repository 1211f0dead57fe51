"""The demo's figure: how the network learned, its first filters, and what it gets wrong."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .data import Digits
from .network import Array
from .training import Epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import SubFigure

# Okabe and Ito's colours, which colour-blind readers can tell apart.
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#555555"
MOST_MISTAKES = 12


def save(
    path: Path,
    data_name: str,
    epochs: list[Epoch],
    filters: Array,
    digits: Digits,
    predicted: Array,
) -> None:
    """Draw the figure and write it as a PNG of 1200 x 800 pixels.

    Parameters
    ----------
    path : Path
    data_name : str
    epochs : list of Epoch
    filters : (K, 1, R, S) ndarray
        Of the first layer.
    digits : Digits
    predicted : (N,) ndarray
        Labels that the network gives to the held-out images.
    """
    # Not pyplot, which would choose a window system and keep the figure for ever.
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    layout = ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.06)
    figure = Figure(figsize=(12, 8), dpi=100, layout=layout, facecolor="white")
    accuracy = epochs[-1].test_accuracy
    figure.suptitle(
        f"fastconv demo on {data_name}: {accuracy:.2%} of {len(predicted):,} held-out digits right",
        fontsize=15,
        fontweight="bold",
    )
    parts = figure.subfigures(2, 2, squeeze=False, wspace=0.04, hspace=0.04)
    _loss(parts[0, 0].subplots(), epochs)
    _accuracy(parts[0, 1].subplots(), epochs)
    _filters(parts[1, 0], filters)
    _mistakes(parts[1, 1], digits, predicted)
    figure.savefig(path)


def _loss(axes: "Axes", epochs: list[Epoch]) -> None:
    losses = np.concatenate([epoch.losses for epoch in epochs])
    # A batch is drawn where in its epoch it was seen.
    axes.plot(
        np.arange(1, len(losses) + 1) * len(epochs) / len(losses),
        losses,
        color=BLUE,
        alpha=0.3,
        linewidth=0.8,
        label="batch",
    )
    means = [epoch.loss for epoch in epochs]
    axes.plot(_numbers(epochs), means, "o-", color=BLUE, markersize=4, label="mean of the epoch")
    axes.set_yscale("log")
    axes.set(ylabel="cross-entropy")
    _finish(axes, "Loss")


def _accuracy(axes: "Axes", epochs: list[Epoch]) -> None:
    for values, colour, label in (
        ([epoch.accuracy for epoch in epochs], BLUE, "training, with dropout"),
        ([epoch.test_accuracy for epoch in epochs], ORANGE, "held out"),
    ):
        percent = 100 * np.array(values)
        axes.plot(_numbers(epochs), percent, "o-", color=colour, markersize=4, label=label)
    axes.set(ylabel="right [%]")
    _finish(axes, "Accuracy")


def _numbers(epochs: list[Epoch]) -> Array:
    return np.arange(1, len(epochs) + 1)


def _finish(axes: "Axes", title: str) -> None:
    from matplotlib.ticker import MaxNLocator

    axes.set_title(title, fontsize=12)
    axes.set_xlabel("epoch")
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, steps=[1, 2, 5, 10]))
    axes.legend(frameon=False)


def _filters(part: "SubFigure", filters: Array) -> None:
    part.suptitle(f"The first layer's {len(filters)} learned filters", fontsize=12)
    limit = float(np.abs(filters).max())
    columns = 8
    grid = part.subplots(-(-len(filters) // columns), columns, squeeze=False)
    image = None
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, taps in zip(grid.flat, filters[:, 0], strict=False):
        # One scale with white at zero for all of them, so that colours compare.
        image = axes.imshow(taps, cmap="RdBu_r", vmin=-limit, vmax=limit)
        _frame(axes)
    assert image is not None
    bar = part.colorbar(image, ax=grid.ravel().tolist(), shrink=0.9, aspect=30, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=8)


def _mistakes(part: "SubFigure", digits: Digits, predicted: Array) -> None:
    wrong = np.flatnonzero(predicted != digits.test_labels)
    shown = wrong[:MOST_MISTAKES]
    title = f"Held-out digits it gets wrong: {len(wrong)}"
    if len(shown) < len(wrong):
        title += f", {len(shown)} of them shown"
    part.suptitle(title, fontsize=12)
    if len(shown) == 0:
        part.text(0.5, 0.5, "None: every one is right.", ha="center", fontsize=12, color=GREY)
        return
    columns = 3 if len(shown) <= 6 else 4
    grid = part.subplots(-(-len(shown) // columns), columns, squeeze=False)
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, index in zip(grid.flat, shown, strict=False):
        axes.imshow(digits.test_images[index, 0], cmap="gray_r")
        _frame(axes)
        true, guess = digits.test_labels[index], predicted[index]
        axes.set_title(f"{true}, read as {guess}", fontsize=10, color=GREY)


def _frame(axes: "Axes") -> None:
    axes.set_axis_on()
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(edgecolor=GREY, linewidth=0.6)
