"""Training history: figures of each epoch, as a table and as curves."""

import csv
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

from sercli.files import write_bytes
from sercli.reporting.canvas import BLUE, VERMILION, new_figure, render_plot, style

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Subfolder of a model folder for the files of its training.
TRAINING_FOLDER = "training"
CHECKPOINT_FILE = "checkpoint.safetensors"
HISTORY_FILE = "history.csv"
CURVES_FILE = "curves.png"
# Subfolder of the same two files of the layers that are trained after the head, and the prefix of
# their names in a model folder.
TUNING_FOLDER = "encoder"
# All of them in a model folder, by their paths in the folder of the training.
HISTORY_FILES = {
    os.path.join(place, name): f"{place}-{name}" if place else name
    for place in ("", TUNING_FOLDER)
    for name in (HISTORY_FILE, CURVES_FILE)
}


@dataclass(frozen=True)
class EpochRecord:
    """Figures of one epoch.

    Parameters
    ----------
    epoch
        Number of the epoch, from 1.
    learning_rate
        Learning rate at the end of the epoch.
    loss
        Mean loss over the batches.
    dev_loss, dev_uar
        Loss in nats and UAR of the averaged weights on the development clips; None without such
        clips.
    seconds
        Duration of the epoch, validation included.
    """

    epoch: int
    learning_rate: float
    loss: float
    dev_loss: float | None
    dev_uar: float | None
    seconds: float


def has_checkpoints(folder: Path, places: str = "**") -> bool:
    """Return whether a model folder has checkpoints of an interrupted training.

    Parameters
    ----------
    folder
        The model folder.
    places
        Pattern of the subfolders in which they are looked for.
    """
    return any((folder / TRAINING_FOLDER).glob(os.path.join(places, CHECKPOINT_FILE)))


def write_history(records: Sequence[EpochRecord], folder: Path) -> None:
    """Write ``history.csv``, one row per epoch; missing values are empty.

    Parameters
    ----------
    records
        Records of the epochs, in order.
    folder
        Folder of the file.
    """
    names = [item.name for item in fields(EpochRecord)]
    text = StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(record) for record in records)
    write_bytes(folder / HISTORY_FILE, text.getvalue().encode())


def write_curves(records: Sequence[EpochRecord], best_epoch: int, folder: Path) -> None:
    """Write ``curves.png``; see `draw_history`."""
    content = render_plot(draw_history(records, best_epoch), "curves", "png")
    write_bytes(folder / CURVES_FILE, content)


def draw_history(records: Sequence[EpochRecord], best_epoch: int) -> "Figure":
    """Draw the losses, and the development UAR if there is any.

    Parameters
    ----------
    records
        Records of the epochs, in order.
    best_epoch
        Number of the epoch to mark, from 1.
    """
    measured = [
        (record.epoch, record.dev_loss, record.dev_uar)
        for record in records
        if record.dev_loss is not None and record.dev_uar is not None
    ]
    from matplotlib.ticker import MaxNLocator

    with style():
        subtitle = (
            f"Weights are those after epoch {best_epoch}; training clips are varied, so that they "
            "are harder"
            if measured
            else f"{len(records)} epochs, no development clips"
        )
        figure, left = new_figure("Training", subtitle, height=3.0, n_columns=1 + bool(measured))
        every = [record.epoch for record in records]
        left.plot(every, [record.loss for record in records], color=BLUE, label="training")
        left.set(xlabel="epoch", ylabel="loss (nats)")
        if measured:
            epochs, losses, uars = zip(*measured, strict=True)
            left.plot(epochs, losses, color=VERMILION, label="development")
            left.legend()
            right = figure.axes[1]
            right.plot(epochs, uars, color=VERMILION)
            best = uars[epochs.index(best_epoch)]
            right.plot([best_epoch], [best], "o", color=VERMILION)
            right.annotate(
                f"{best:.3f}",
                (best_epoch, best),
                (0, -12),
                textcoords="offset points",
                ha="center",
                fontsize=8,
            )
            right.set(xlabel="epoch", ylabel="development UAR")
        for axes in figure.axes:
            axes.grid(axis="y")
            axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
