"""Registry of the model families, whose packages are imported only when needed."""

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sercli.classifiers.base import Classifier

# Family to "module:class"; a family's packages are imported with its first model.
FAMILIES: Mapping[str, str] = {
    "svm": "sercli.classifiers.svm:SvmClassifier",
    "cnn": "sercli.classifiers.cnn:CnnClassifier",
    "transformer": "sercli.classifiers.transformer:TransformerClassifier",
    "fusion": "sercli.classifiers.fusion:FusionClassifier",
}

# File of a transformer's pre-trained encoder; its head is stored separately.
ENCODER_FILE = "encoder.safetensors"


def load_family(name: str) -> type["Classifier"]:
    """Return the class of a family, importing its packages.

    Parameters
    ----------
    name
        Name of the family, one of `FAMILIES`.
    """
    module, _, attribute = FAMILIES[name].partition(":")
    result: type[Classifier] = getattr(import_module(module), attribute)
    return result
