"""Low-rank adaptation: layers learn low-rank corrections of their weights (LoRA, Hu et al. 2021).

This takes less memory and forgets less than training all weights of the layers. After training, the
corrections are merged into the weights, so that a model runs without the package that trains them.
"""

from collections.abc import Sequence

from torch import nn

from sercli.errors import ConfigError

NAME = "ser"
# peft scales the corrections by lora_alpha / rank; lora_alpha is ALPHA times the rank.
ALPHA = 2
# Factor of the learning rate relative to training the weights themselves: corrections start at 0.
RATE_FACTOR = 10.0


def add_lora(model: nn.Module, layers: Sequence[nn.Module], rank: int) -> None:
    """Add trainable low-rank matrices to the linear maps of some layers, and freeze the rest.

    Weights that a layer passes to its attention directly, not as a module call (WavLM), get no
    effective correction.

    Parameters
    ----------
    model
        Model that contains the layers.
    layers
        Layers to train.
    rank
        Rank of the corrections.

    Raises
    ------
    ConfigError
        If the package peft is not installed.
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
    """Merge low-rank matrices into the weights that they correct, and remove them.

    Parameters
    ----------
    model
        Model with matrices added by `add_lora`.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, part in list(model.named_modules()):
        if isinstance(part, BaseTunerLayer):
            part.merge()
            parent, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(parent), attribute, part.get_base_layer())
