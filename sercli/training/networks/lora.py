"""Low-rank adaptation: layers learn low-rank corrections of their weights (LoRA, Hu et al. 2021).

This takes less memory and forgets less than training all weights of the layers. After training, the
corrections are merged into the weights, so that a model runs without the package that trains them.
"""

from collections.abc import Callable, Sequence

from torch import nn

from sercli.errors import ConfigError

NAME = "ser"
# peft scales the corrections by lora_alpha / rank; lora_alpha is ALPHA times the rank.
ALPHA = 2
# Factor of the learning rate relative to training the weights themselves: corrections start at 0.
RATE_FACTOR = 10.0


def add_lora(
    model: nn.Module, layers: Sequence[nn.Module], rank: int, run: Callable[[], object]
) -> None:
    """Add trainable low-rank matrices to the linear maps of some layers, and freeze the rest.

    Only linear maps that are called as modules get matrices. WavLM passes the weights of its
    attention to a function instead: matrices of these would have no effect and no gradient.

    Parameters
    ----------
    model
        Model that contains the layers.
    layers
        Layers to train.
    rank
        Rank of the corrections.
    run
        Function that runs the model once, which shows what is called.

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
    called: set[nn.Module] = set()
    hooks = [
        part.register_forward_pre_hook(lambda part, _: called.add(part))
        for layer in layers
        for part in layer.modules()
        if isinstance(part, nn.Linear)
    ]
    run()
    for hook in hooks:
        hook.remove()
    targets = [name for name, part in model.named_modules() if part in called]
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
