"""The card of a model: what a person should know before using it."""

from pathlib import Path
from typing import Any

from sercli.classifiers.base import ModelSpec

_CARD = """\
# {name}

An RBF support vector machine on spectral statistics of speech below {limit:.0f} Hz. It gives
{labels} a calibrated probability each, for segments of 0.1 to 30 s.

## Training

| | |
|---|---|
| corpus | {corpus} ({licence}) |
| fitted on | {n_clips} clips of the {n_speakers} speakers of {splits} |
| versions of each clip | as it is, and {n_varied} with another voice, room, microphone or noise |
| settings | C {c:g}, gamma {gamma:.4g}: best of {trials} by {folds}-fold cross-validation |
| calibration | temperature, on the scores of the held-out folds |
| seed | {seed} |
| command | `ser train CREMA-D --model svm --fit-on {fit_on} --seed {seed} -o {name}` |

Folds keep each speaker together. The speakers are listed in `model.json`; those of the split
`test` were not read.

## Figures

By cross-validation, each speaker judged and calibrated by models that did not hear them; one run:

| clips | UAR | accuracy | macro-F1 | ECE |
|---|---|---|---|---|
{figures}

The figures of the test speakers are in `metrics.json`, written by
`ser eval CREMA-D --model {name} --split test`. They count: the features were designed with an eye
on speakers that are among those above.

## Limits

- The emotions are acted, by North American actors, in English. How well they carry over to
  spontaneous speech, other languages, other ages and other cultures is not known.
- All speakers of CREMA-D say the same 12 sentences, so that those of the test speakers, too, were
  heard in training. Expect less on other texts.
- Rooms, noises and telephones are simulated, without codecs: real ones are harder.
- It knows one studio. On other material it often sees too much emotion: in read speech recorded
  close to the mouth, mostly anger and fear. Judge by a sample of your own recordings.
- A label says how speech sounds, not what a person feels. Do not decide about people by it.
"""


def write_card(spec: ModelSpec, folder: Path) -> None:
    """Write a model's card as ``README.md`` into its folder.

    Parameters
    ----------
    spec
        Of a model that `sercli.training.svm.train_svm` made.
    folder
        The model folder; its name is the model's.
    """
    (folder / "README.md").write_text(_render(spec, folder.resolve().name), encoding="utf-8")


def _render(spec: ModelSpec, name: str) -> str:
    training: dict[str, Any] = dict(spec.training)
    figures = "\n".join(
        f"| {version} | {row['uar']:.3f} | {row['accuracy']:.3f} "
        f"| {row['macro_f1']:.3f} | {row['ece']:.3f} |"
        for version, row in training["held_out"].items()
    )
    return _CARD.format(
        name=name,
        limit=spec.band_limit,
        labels=", ".join(spec.labels),
        corpus=training["corpus"],
        licence=training["licence"],
        n_clips=training["clips"],
        n_speakers=len(training["speakers"]),
        splits=" and ".join(f"`{split}`" for split in training["splits"]),
        fit_on="+".join(training["splits"]),
        n_varied=training["versions"].count("varied"),
        c=training["chosen"]["C"],
        gamma=spec.settings["gamma"],
        trials=len(training["search"]),
        folds=training["folds"],
        seed=training["seed"],
        figures=figures,
    )
