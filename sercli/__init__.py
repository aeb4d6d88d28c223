"""Batch annotator of emotion in recorded speech.

The names below are imported on first use, so that importing the package itself is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sercli.version import __version__

if TYPE_CHECKING:
    from sercli.annotation.annotator import Annotator, annotate
    from sercli.annotation.run import write_labels
    from sercli.audio.reading import load_audio
    from sercli.classifiers.base import Classifier
    from sercli.config import Effort, EvalConfig, SegmentConfig
    from sercli.datasets import Corpus, read_corpus
    from sercli.discovery import Found, find_inputs
    from sercli.errors import (
        AudioError,
        ConfigError,
        DatasetError,
        ModelError,
        OutputError,
        SerError,
        TrainingError,
    )
    from sercli.evaluation.run import Evaluation, evaluate
    from sercli.output.exporting import export_labels
    from sercli.output.report import RunReport
    from sercli.output.results import read_results
    from sercli.registry.catalogue import ModelEntry, list_models
    from sercli.registry.store import load_model
    from sercli.schema import FileResult, Group, Segment
    from sercli.speech.speakers import Speakers
    from sercli.speech.turns import Turns
    from sercli.training.config import (
        AdapterConfig,
        CnnConfig,
        FusionConfig,
        SvmConfig,
        TransformerConfig,
    )
    from sercli.training.plan import train
    from sercli.training.run import Training
    from sercli.training.train_config import TrainConfig

_HOMES = {
    "AdapterConfig": "training.config",
    "Annotator": "annotation.annotator",
    "AudioError": "errors",
    "Classifier": "classifiers.base",
    "CnnConfig": "training.config",
    "ConfigError": "errors",
    "Corpus": "datasets",
    "DatasetError": "errors",
    "Effort": "config",
    "EvalConfig": "config",
    "Evaluation": "evaluation.run",
    "FileResult": "schema",
    "Found": "discovery",
    "FusionConfig": "training.config",
    "Group": "schema",
    "ModelEntry": "registry.catalogue",
    "ModelError": "errors",
    "OutputError": "errors",
    "RunReport": "output.report",
    "Segment": "schema",
    "SegmentConfig": "config",
    "SerError": "errors",
    "Speakers": "speech.speakers",
    "SvmConfig": "training.config",
    "TrainConfig": "training.train_config",
    "Training": "training.run",
    "TrainingError": "errors",
    "TransformerConfig": "training.config",
    "Turns": "speech.turns",
    "annotate": "annotation.annotator",
    "evaluate": "evaluation.run",
    "export_labels": "output.exporting",
    "find_inputs": "discovery",
    "list_models": "registry.catalogue",
    "load_audio": "audio.reading",
    "load_model": "registry.store",
    "read_corpus": "datasets",
    "read_results": "output.results",
    "train": "training.plan",
    "write_labels": "annotation.run",
}

__all__ = [
    "AdapterConfig",
    "Annotator",
    "AudioError",
    "Classifier",
    "CnnConfig",
    "ConfigError",
    "Corpus",
    "DatasetError",
    "Effort",
    "EvalConfig",
    "Evaluation",
    "FileResult",
    "Found",
    "FusionConfig",
    "Group",
    "ModelEntry",
    "ModelError",
    "OutputError",
    "RunReport",
    "Segment",
    "SegmentConfig",
    "SerError",
    "Speakers",
    "SvmConfig",
    "TrainConfig",
    "Training",
    "TrainingError",
    "TransformerConfig",
    "Turns",
    "__version__",
    "annotate",
    "evaluate",
    "export_labels",
    "find_inputs",
    "list_models",
    "load_audio",
    "load_model",
    "read_corpus",
    "read_results",
    "train",
    "write_labels",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
