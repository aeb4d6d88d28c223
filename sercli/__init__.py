"""Batch annotator of emotion in recorded speech.

The names below load on first use, so that importing the package costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sercli.version import __version__

if TYPE_CHECKING:
    from sercli.annotation import Annotator, annotate
    from sercli.audio import load_audio
    from sercli.catalogue import ModelEntry, list_models
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
    from sercli.exporting import export_labels
    from sercli.report import RunReport
    from sercli.results import read_results
    from sercli.run import write_labels
    from sercli.schema import FileResult, Group, Segment
    from sercli.speakers import Speakers
    from sercli.store import load_model
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
    from sercli.turns import Turns

_HOMES = {
    "AdapterConfig": "training.config",
    "Annotator": "annotation",
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
    "ModelEntry": "catalogue",
    "ModelError": "errors",
    "OutputError": "errors",
    "RunReport": "report",
    "Segment": "schema",
    "SegmentConfig": "config",
    "SerError": "errors",
    "Speakers": "speakers",
    "SvmConfig": "training.config",
    "TrainConfig": "training.train_config",
    "Training": "training.run",
    "TrainingError": "errors",
    "TransformerConfig": "training.config",
    "Turns": "turns",
    "annotate": "annotation",
    "evaluate": "evaluation.run",
    "export_labels": "exporting",
    "find_inputs": "discovery",
    "list_models": "catalogue",
    "load_audio": "audio",
    "load_model": "store",
    "read_corpus": "datasets",
    "read_results": "results",
    "train": "training.plan",
    "write_labels": "run",
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
