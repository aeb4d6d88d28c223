"""Model cards: what a user should know before using a model."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sercli.classifiers.base import ModelSpec
from sercli.evaluation.resampling import FIGURES
from sercli.files import write_bytes
from sercli.registry.description import CARD_FILE
from sercli.reporting.families import FAMILY_TEXTS
from sercli.reporting.parts import NAMES
from sercli.text import format_count

_CARD = """\
# {name}

{introduction}, for segments of
0.1 to 30 s. It returns a calibrated probability for each of {labels}.

## Training

| | |
|---|---|
| corpus | {corpus} ({licence}) |
{left_out}| trained on | {n_clips:,} clips of {n_speakers} speakers; splits: {splits} |
| protocol | {protocol} |
{settings}
| calibration | {calibration}, fitted on {calibrated_on} |
| seed | {seed} |
| command | `{command}` |

{folds}`manifest.csv` holds a hash of each clip and speaker that the
model was trained on, so that `ser eval` can warn when it is evaluated on any of them.

## Figures

{scored}; one training run:

| clips | UAR | accuracy | macro-F1 | ECE |
|---|---|---|---|---|
{held_out}
{measured}{adapter}
## Limits

{corpus_limits}
- A label describes how speech sounds, not what a person feels. Do not base decisions about people
  on it.
"""

# Limits of models trained on CREMA-D, and of all others.
_CREMAD_LIMITS = """\
- Emotions in such corpora are mostly acted; in CREMA-D, by North American actors, in English. How
  well the model generalises to spontaneous speech and to other languages, ages and cultures is not
  known.
- All speakers of CREMA-D say the same 12 sentences, so the sentences of the test speakers were also
  in the training data. Expect lower figures on other texts.
- Rooms, noise and telephone lines were simulated; real ones are harder.
- The model knows only the studios of its training data. On other recordings it often reports too
  much emotion. Check it on a sample of your own recordings."""
_OTHER_LIMITS = """\
- How well the model generalises to other speech (spontaneous speech, other languages, ages and
  cultures) is not known. Acted emotions differ from spontaneous ones. If all speakers of the corpus
  say the same texts, expect lower figures on other texts.
- On recordings unlike its training data, it may be wrong more often, and report too much emotion.
  Check it on a sample of your own recordings."""

_MEASURED = """
On {n_segments:,} clips of {corpus}, split `{split}` ({speakers}; {protocol}), in {precision},
with {level:.0%} bootstrap intervals over {resampled}; one training run. More figures are in
`metrics.json`.

| UAR | accuracy | macro-F1 | ECE | NLL | Brier |
|---|---|---|---|---|---|
| {figures} |
| {intervals} |

On this many clips, perfectly calibrated probabilities would have an ECE of {exact} by chance.

| emotion | precision | recall | F1 | clips |
|---|---|---|---|---|
{classes}
{precisions}"""
_PRECISIONS = """
On the same clips, with number types other than {precision}. Rounding depends on the CPU or GPU that
was used:

| number type | UAR (difference) | labels that stay the same | largest change in a probability |
|---|---|---|---|
{rows}
"""
_ADAPTER = """
## With a baseline

`--adapt` compares each segment with a baseline estimated from its group, if the group has {least}
segments or more{asked}. The adapter for this was trained on random groups of clips of one
speaker{source}.

These figures are from cross-validation: each speaker was scored by a model and an adapter that were
not trained on any of their clips; one training run. The ECE is with the baseline.

| mix | segments | figure | without baseline | with baseline (difference, 95% interval) | ECE |
|---|---|---|---|---|---|
{rows}
"""


def write_card(spec: ModelSpec, folder: Path, figures: Mapping[str, Any] | None = None) -> None:
    """Write a model's card as ``README.md`` into its folder.

    Parameters
    ----------
    spec
        Specification of a model that `sercli.training.run` made.
    folder
        The model folder, whose name is the model's.
    figures
        Figures on clips that it was not trained on, if it was evaluated; see
        `sercli.evaluation.run`.

    Raises
    ------
    OutputError
        If the card cannot be written.
    """
    text = _render(spec, folder.resolve().name, figures)
    write_bytes(folder / CARD_FILE, text.encode())


def _render(spec: ModelSpec, name: str, figures: Mapping[str, Any] | None) -> str:
    training: dict[str, Any] = dict(spec.training)
    held_out = "\n".join(
        f"| {version} | {row['uar']:.3f} | {row['accuracy']:.3f} "
        f"| {row['macro_f1']:.3f} | {row['ece']:.3f} |"
        for version, row in training["held_out"].items()
    )
    parts = FAMILY_TEXTS[spec.family](spec)
    return _CARD.format(
        name=name,
        introduction=parts.introduction,
        labels=", ".join(spec.labels),
        corpus=training["corpus"],
        licence=training["licence"] or "licence unknown",
        corpus_limits=(
            _CREMAD_LIMITS if "cremad" in training["corpus"].split("+") else _OTHER_LIMITS
        ),
        left_out=_tell_left_out(training.get("labels_left_out", {})),
        n_clips=training["clips"],
        n_speakers=training["speakers"] or "unknown",
        splits=" and ".join(f"`{split}`" for split in training["splits"]),
        protocol=training["protocol"],
        settings="\n".join(f"| {row} | {text} |" for row, text in parts.settings.items()),
        calibration=spec.calibration.method,
        calibrated_on=parts.calibrated_on,
        seed=training["seed"],
        command=_tell_command(training, name) or "none: trained from Python",
        folds=parts.folds,
        scored=parts.scored,
        held_out=held_out,
        measured=_render_measured(figures) if figures else "",
        adapter=_render_adapter(training["adapter"], name) if "adapter" in training else "",
    )


def _tell_left_out(labels: Mapping[str, int]) -> str:
    """Return the table row on labels of the corpus that the model does not learn, if any."""
    counts = ", ".join(f"{format_count(n, 'clip')} of {label}" for label, n in labels.items())
    return f"| labels left out | {counts} |\n" if counts else ""


def _tell_command(record: Mapping[str, Any], name: str) -> str:
    """Return the command of a training, which ends in the name of the model; may be empty."""
    command: str = record.get("command", "")
    return command.removesuffix("NAME") + name if command.endswith(" NAME") else command


def _render_adapter(record: Mapping[str, Any], name: str) -> str:
    command = _tell_command(record, name)
    return _ADAPTER.format(
        least=record["least"],
        asked=""
        if record["safe"]
        else ".\n`--adapt auto` uses no baseline, since it makes some mixes of emotions worse",
        source=f", by\n`{command}`" if command else "",
        rows="\n".join(
            f"| {row['mix']} | {row['mean_size']:g} | {NAMES[row['figure']]} "
            f"| {row['alone'][row['figure']]:.3f} | {row['adapted'][row['figure']]:.3f} "
            f"({_tell_interval(row['interval'])}) "
            f"| {row['adapted']['ece']:.3f} |"
            for row in record["mixes"]
        ),
    )


def _tell_interval(limits: Sequence[float] | None) -> str:
    return "-" if limits is None else f"{limits[0]:+.3f} to {limits[1]:+.3f}"


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
        precision=figures["precision"],
        level=intervals["level"],
        resampled=intervals["resampled"],
        figures=" | ".join(f"{figures[name]:.3f}" for name in FIGURES),
        intervals=" | ".join(
            "-" if limits is None else f"{limits[0]:.3f} to {limits[1]:.3f}"
            for limits in (intervals["figures"][name] for name in FIGURES)
        ),
        exact="{:.3f} ({:.3f} to {:.3f})".format(
            figures["exact_ece"]["mean"], *figures["exact_ece"]["interval"]
        ),
        classes="\n".join(
            f"| {label} | {row['precision']:.3f} | {row['recall']:.3f} | {row['f1']:.3f} "
            f"| {row['support']} |"
            for label, row in figures["classes"].items()
        ),
        precisions=_render_precisions(figures) if figures.get("precisions") else "",
    )


def _render_precisions(figures: Mapping[str, Any]) -> str:
    return _PRECISIONS.format(
        precision=figures["precision"],
        rows="\n".join(
            # Adding 0.0 turns -0.0 into 0.0.
            f"| {name} | {row['uar']:.3f} ({round(-row['drop'], 3) + 0.0:+.3f}) "
            f"| {row['unchanged']:.1%} | {row['change']:.3f} |"
            for name, row in figures["precisions"].items()
        ),
    )
