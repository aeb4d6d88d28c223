"""Low-rank matrices: layers learn small corrections of their weights (LoRA, Hu et al. 2021).

They take less memory and forget less than layers of which all weights learn. At the end they become
part of the weights, so that a model has none and runs without the package that trains them.
"""

from collections.abc import Sequence

from torch import nn

from sercli.errors import ConfigError

NAME = "ser"
# They are multiplied by twice their rank over their rank, whatever the rank is.
ALPHA = 2
# Of the learning rate of the weights themselves: they start from zero.
RATE_FACTOR = 10.0


def add_lora(model: nn.Module, layers: Sequence[nn.Module], rank: int) -> None:
    """Add low-rank matrices to the linear maps of some layers; nothing else learns any more.

    What a layer hands to its attention as bare weights (WavLM) stays as it is.

    Parameters
    ----------
    model
        Of which the layers are a part.
    layers
        That are to learn.
    rank
        Of the corrections.

    Raises
    ------
    ConfigError
        If the package that trains them is not installed.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ConfigError(
            f"low-rank matrices need the package peft, which cannot be imported ({error}); "
            "run: pip install 'sercli[lora]'"
        ) from error
    linear = {part for layer in layers for part in layer.modules() if isinstance(part, nn.Linear)}
    targets = [name for name, part in model.named_modules() if part in linear]
    config = LoraConfig(r=rank, lora_alpha=ALPHA * rank, target_modules=targets)
    inject_adapter_in_model(config, model, NAME)


def merge_lora(model: nn.Module) -> None:
    """Make low-rank matrices a part of the weights that they correct, and remove them.

    Parameters
    ----------
    model
        With those of `add_lora`.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, part in list(model.named_modules()):
        if isinstance(part, BaseTunerLayer):
            part.merge()
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, part.get_base_layer())
