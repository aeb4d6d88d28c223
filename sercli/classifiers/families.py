"""The families of models that there are; none of their packages is imported before it is needed."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sercli.classifiers.base import Classifier

# Family to "module:class": a family's packages load with its first model, and never before.
FAMILIES: Mapping[str, str] = {
    "svm": "sercli.classifiers.svm:SvmClassifier",
    "cnn": "sercli.classifiers.cnn:CnnClassifier",
    "transformer": "sercli.classifiers.transformer:TransformerClassifier",
    "fusion": "sercli.classifiers.fusion:FusionClassifier",
}

# A transformer's pre-trained encoder is apart from what is trained on it.
ENCODER_FILE = "encoder.safetensors"


def load_family(name: str) -> type["Classifier"]:
    """Return the class of a family, importing what it needs.

    Parameters
    ----------
    name
        One of `FAMILIES`.
    """
    module, _, attribute = FAMILIES[name].partition(":")
    result: type[Classifier] = getattr(import_module(module), attribute)
    return result
