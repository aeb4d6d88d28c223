"""The card of a model: what a person should know before using it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sercli.classifiers.base import ModelSpec
from sercli.store import CARD_FILE
from sercli.text import format_count

_CARD = """\
# {name}

An RBF support vector machine on spectral statistics of speech below {limit:.0f} Hz, for segments of
0.1 to 30 s. It gives a calibrated probability to each of {labels}.

## Training

| | |
|---|---|
| corpus | {corpus} ({licence}) |
| fitted on | {n_clips:,} clips of {n_speakers} speakers; splits: {splits} |
| protocol | {protocol} |
| versions of each clip | as it is, and {n_varied} with another voice, room, microphone or noise |
| settings | C {c:g}, gamma {gamma:.4g}: best of {trials} by {folds}-fold cross-validation |
| calibration | temperature, on the scores of the held-out folds |
| seed | {seed} |
| command | `{command}` |

Folds keep each {group} together. `manifest.csv` holds a hash of each clip and speaker that the
model was trained on, by which `ser eval` tells when it is measured on any of them.

## Figures

By cross-validation on what it was fitted on, each {group} judged and calibrated by models that did
not hear it; one run:

| clips | UAR | accuracy | macro-F1 | ECE |
|---|---|---|---|---|
{held_out}
{measured}
## Limits

- The emotions of such corpora are mostly acted, and those of CREMA-D by North American actors, in
  English. How well they carry over to spontaneous speech, other languages, other ages and other
  cultures is not known.
- All speakers of CREMA-D say the same 12 sentences, so that those of its test speakers, too, were
  heard in training. Expect less on other texts.
- Rooms, noises and telephones were simulated: real ones are harder.
- A model knows the studios that it was trained on. On other material it often sees too much
  emotion. Judge by a sample of your own recordings.
- A label says how speech sounds, not what a person feels. Do not decide about people by it.
"""

_MEASURED = """
On {n_segments:,} clips of the split {split} of {corpus} ({speakers}; {protocol}),
with {level:.0%} intervals by resampling {resampled}; one run, more in `metrics.json` and
`report.md`:

| UAR | accuracy | macro-F1 | ECE | NLL | Brier |
|---|---|---|---|---|---|
| {figures} |
| {intervals} |

| emotion | precision | recall | F1 | clips |
|---|---|---|---|---|
{classes}
"""
_FIGURES = ("uar", "accuracy", "macro_f1", "ece", "nll", "brier")


def write_card(spec: ModelSpec, folder: Path, figures: Mapping[str, Any] | None = None) -> None:
    """Write a model's card as ``README.md`` into its folder.

    Parameters
    ----------
    spec
        Of a model that `sercli.training.run` made.
    folder
        The model folder; its name is the model's.
    figures
        Of clips that it was not trained on, if it was measured; see `sercli.evaluation.run`.
    """
    text = _render(spec, folder.resolve().name, figures)
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def _render(spec: ModelSpec, name: str, figures: Mapping[str, Any] | None) -> str:
    training: dict[str, Any] = dict(spec.training)
    held_out = "\n".join(
        f"| {version} | {row['uar']:.3f} | {row['accuracy']:.3f} "
        f"| {row['macro_f1']:.3f} | {row['ece']:.3f} |"
        for version, row in training["held_out"].items()
    )
    return _CARD.format(
        name=name,
        limit=spec.band_limit,
        labels=", ".join(spec.labels),
        corpus=training["corpus"],
        licence=training["licence"] or "licence unknown",
        n_clips=training["clips"],
        n_speakers=training["speakers"] or "unknown",
        splits=" and ".join(f"`{split}`" for split in training["splits"]),
        protocol=training["protocol"],
        n_varied=training["versions"].count("varied"),
        c=training["chosen"]["C"],
        gamma=spec.settings["gamma"],
        trials=len(training["search"]),
        folds=training["folds"],
        group=training["group_by"],
        seed=training["seed"],
        command=training.get("command", "").replace("NAME", name) or "none: trained from Python",
        held_out=held_out,
        measured=_render_measured(figures) if figures else "",
    )


def _render_measured(figures: Mapping[str, Any]) -> str:
    intervals = figures["intervals"]
    return _MEASURED.format(
        n_segments=figures["n_segments"],
        split=figures["split"],
        corpus=figures["corpus"],
        speakers=(
            format_count(len(figures["speakers"]), "speaker")
            if figures["speakers"]
            else "unknown speakers"
        ),
        protocol=figures["protocol"],
        level=intervals["level"],
        resampled=intervals["resampled"],
        figures=" | ".join(f"{figures[name]:.3f}" for name in _FIGURES),
        intervals=" | ".join(
            "-" if limits is None else f"{limits[0]:.3f} to {limits[1]:.3f}"
            for limits in (intervals["figures"][name] for name in _FIGURES)
        ),
        classes="\n".join(
            f"| {label} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} "
            f"| {row['support']} |"
            for label, row in figures["classes"].items()
        ),
    )
