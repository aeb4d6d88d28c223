"""Batch annotator of emotion in recorded speech.

The names below are imported on first use, so that importing the package itself is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from sercli.version import __version__

if TYPE_CHECKING:
    from sercli.annotation.annotator import Annotator as Annotator
    from sercli.annotation.annotator import annotate as annotate
    from sercli.annotation.run import write_labels as write_labels
    from sercli.audio.reading import load_audio as load_audio
    from sercli.classifiers.base import Classifier as Classifier
    from sercli.config import Effort as Effort
    from sercli.config import EvalConfig as EvalConfig
    from sercli.config import SegmentConfig as SegmentConfig
    from sercli.datasets import Corpus as Corpus
    from sercli.datasets import read_corpus as read_corpus
    from sercli.discovery import Found as Found
    from sercli.discovery import find_inputs as find_inputs
    from sercli.errors import AudioError as AudioError
    from sercli.errors import ConfigError as ConfigError
    from sercli.errors import DatasetError as DatasetError
    from sercli.errors import ModelError as ModelError
    from sercli.errors import OutputError as OutputError
    from sercli.errors import SerError as SerError
    from sercli.errors import TrainingError as TrainingError
    from sercli.evaluation.run import Evaluation as Evaluation
    from sercli.evaluation.run import evaluate as evaluate
    from sercli.output.exporting import export_labels as export_labels
    from sercli.output.report import RunReport as RunReport
    from sercli.output.results import read_results as read_results
    from sercli.output.summaries import Summary as Summary
    from sercli.output.summaries import summarise as summarise
    from sercli.registry.catalogue import ModelEntry as ModelEntry
    from sercli.registry.catalogue import list_models as list_models
    from sercli.registry.store import load_model as load_model
    from sercli.schema import FileResult as FileResult
    from sercli.schema import Group as Group
    from sercli.schema import Segment as Segment
    from sercli.speech.speakers import Speakers as Speakers
    from sercli.speech.turns import Turns as Turns
    from sercli.training.config import AdapterConfig as AdapterConfig
    from sercli.training.config import CnnConfig as CnnConfig
    from sercli.training.config import FusionConfig as FusionConfig
    from sercli.training.config import SvmConfig as SvmConfig
    from sercli.training.config import TransformerConfig as TransformerConfig
    from sercli.training.plan import train as train
    from sercli.training.run import Training as Training
    from sercli.training.train_config import TrainConfig as TrainConfig

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
    "Summary": "output.summaries",
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
    "summarise": "output.summaries",
    "train": "training.plan",
    "write_labels": "annotation.run",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
