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
| fitted on | {train_clips} clips of {train_speakers} speakers |
| calibrated on | {dev_clips} clips of {dev_speakers} other speakers |
| versions of each clip | as it is, and {n_varied} with another room, microphone, noise or line |
| settings | C {c:g}, gamma {gamma:.4g}: best of {trials} by {folds}-fold cross-validation |
| seed | {seed} |
| command | `ser train CREMA-D --model svm --seed {seed} -o {name}` |

The speakers are listed in `model.json`. None of the partition's test speakers was read.

## Figures

On the {dev_speakers} speakers of the calibration, each calibrated on the others ({folds} folds),
from a single training run. Design choices were made on these speakers too: the figures of the
test speakers, which were not, are in `metrics.json`, written by
`ser eval CREMA-D --model {name} --split test`.

| version of the clips | UAR | accuracy | macro-F1 | ECE |
|---|---|---|---|---|
{figures}

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
    fitted, calibrated, best = (training[key] for key in ("fitted_on", "calibrated_on", "chosen"))
    figures = "\n".join(
        f"| {version} | {row['uar']:.3f} | {row['accuracy']:.3f} "
        f"| {row['macro_f1']:.3f} | {row['ece']:.3f} |"
        for version, row in training["dev"].items()
    )
    return _CARD.format(
        name=name,
        limit=spec.band_limit,
        labels=", ".join(spec.labels),
        corpus=training["corpus"],
        licence=training["licence"],
        train_clips=fitted["clips"],
        train_speakers=len(fitted["speakers"]),
        dev_clips=calibrated["clips"],
        dev_speakers=len(calibrated["speakers"]),
        n_varied=training["versions"].count("varied"),
        c=best["C"],
        gamma=spec.settings["gamma"],
        trials=len(training["search"]),
        folds=training["folds"],
        seed=training["seed"],
        figures=figures,
    )
