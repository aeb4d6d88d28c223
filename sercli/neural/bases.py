"""Loading of pre-trained networks from a folder or the hub: settings and weights, never code."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoModelForAudioClassification,
    PreTrainedConfig,
    PreTrainedModel,
    logging,
)
from transformers.utils.peft_utils import ADAPTER_CONFIG_NAME, find_adapter_config_file

from sercli.audio import SAMPLE_RATE
from sercli.errors import ModelError
from sercli.neural.hub import HUB_NAME, PREPROCESSOR_FILES
from sercli.neural.published_encoders import choose_attention
from sercli.neural.speech_encoder import ARCHITECTURES, AST, WHISPER

# Arguments for transformers where nothing may be downloaded.
LOCAL: Mapping[str, Any] = {"trust_remote_code": False, "local_files_only": True}
# Settings of a checkpoint that do not concern its encoder.
APART = frozenset(
    (
        "architectures",
        "classifier_proj_size",
        "dtype",
        "id2label",
        "label2id",
        "transformers_version",
        "use_weighted_layer_sum",
        "_name_or_path",
    )
)
# Prefixes of weights that a checkpoint may lack: the heads on the encoder, which are not used.
HEADS = ("classifier.", "projector.", "layer_weights")
# End of the name of an embedding that only pre-training uses.
MASK_EMBEDDING = "masked_spec_embed"
# Errors that transformers raises on invalid settings and weights.
_FAILURES = (
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    SafetensorError,
    StrictDataclassError,
    TypeError,
    ValueError,
)


@dataclass(frozen=True, eq=False)
class Base:
    """A pre-trained encoder.

    Parameters
    ----------
    name
        Name on the hub, or of its folder.
    settings
        Settings for `sercli.neural.encoders.create_encoder`.
    weights
        Weights by name, in float32.
    """

    name: str
    settings: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    @cached_property
    def digest(self) -> str:
        """Hash of its settings and weights."""
        content = blake2b(json.dumps(dict(self.settings), sort_keys=True).encode(), digest_size=16)
        for name, tensor in sorted(self.weights.items()):
            content.update(name.encode())
            content.update(tensor.contiguous().numpy().tobytes())
        return content.hexdigest()


def load_base(base: str, revision: str | None = None) -> Base:
    """Load a pre-trained encoder.

    Parameters
    ----------
    base
        Path of a folder, or a name on the hub.
    revision
        Commit, tag or branch on the hub.

    Raises
    ------
    ModelError
        If it does not exist or cannot be loaded, its architecture is unknown, it has no
        safetensors, weights are missing, or its sample rate is not 16 kHz.
    """
    local = os.path.isdir(base)
    if not local and not HUB_NAME.fullmatch(base):
        raise ModelError(
            f"{base}: no such folder; expected one with config.json and model.safetensors, or a "
            "name on the hub, such as openai/whisper-base"
        )
    told = LOCAL if local else {"trust_remote_code": False, "revision": revision}
    with loading(base, "a pre-trained encoder with its weights as safetensors"):
        config = read_config(base, told)
        # It follows the last layer, and `transformers` has no classifier with it. Other settings
        # stay as they are, since they are part of the name of cached rows.
        if getattr(config, "add_adapter", False):
            config.add_adapter = False
        model, missing, *_ = read_weights(base, config, told)
        kind = config.model_type
        _check_rate(base, local, revision)
        standardisation = _read_standardisation(base, local, revision) if kind == AST else {}
    unused = [name for name in missing if name.endswith(MASK_EMBEDDING)]
    missing = [name for name in missing if name not in unused and not name.startswith(HEADS)]
    if missing:
        raise ModelError(
            f"{base}: lacks weights of its encoder: {', '.join(missing[:3])} ({len(missing)} in "
            "all); expected a checkpoint of the whole encoder"
        )
    encoder: Any = model.encoder if kind == WHISPER else model.base_model
    settings = {key: value for key, value in config.to_diff_dict().items() if key not in APART}
    settings |= standardisation
    weights = {name: tensor.float() for name, tensor in encoder.state_dict().items()}
    for name, tensor in weights.items():
        if unused and name.endswith(MASK_EMBEDDING):
            tensor.zero_()  # instead of random values
        if not tensor.isfinite().all():
            raise ModelError(
                f"{base}: its weights {name} are not all finite; expected a checkpoint as it was "
                "saved after training"
            )
    name = Path(base).resolve().name if local else base
    # A round trip through JSON gives the settings as a model folder returns them.
    return Base(name, json.loads(json.dumps(settings | {"model_type": kind})), weights)


def _check_rate(base: str, local: bool, revision: str | None) -> None:
    """Raise if an encoder's preprocessing, which it may lack, is for another sample rate."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    path = Path(base) / PREPROCESSOR_FILES[0]
    try:
        if not local:
            path = Path(hf_hub_download(base, PREPROCESSOR_FILES[0], revision=revision))
        rate = json.loads(path.read_text(encoding="utf-8")).get("sampling_rate", SAMPLE_RATE)
    except (FileNotFoundError, EntryNotFoundError):
        return
    if rate != SAMPLE_RATE:
        raise ModelError(
            f"{base}: its {PREPROCESSOR_FILES[0]} has the sampling_rate {rate!r}; expected "
            f"{SAMPLE_RATE}, since all audio is given to encoders at this rate"
        )


def _read_standardisation(base: str, local: bool, revision: str | None) -> dict[str, float]:
    from huggingface_hub import hf_hub_download

    path = (
        Path(base) / PREPROCESSOR_FILES[0]
        if local
        else Path(hf_hub_download(base, PREPROCESSOR_FILES[0], revision=revision))
    )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {"mean": float(data["mean"]), "deviation": float(data["std"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{os.fspath(path)}: expected the mean and std of the frames that the encoder was "
            f"trained on: {error}"
        ) from error


class Weights(NamedTuple):
    """A network of `transformers`, in float32.

    Parameters
    ----------
    model
        Encoder with a classification head.
    missing
        Names of weights that the checkpoint lacks or has in another size; these are random.
    unexpected
        Names of weights that only the checkpoint has.
    sizes
        Shapes of weights of another size, by name: in the checkpoint, and as expected.
    """

    model: PreTrainedModel
    missing: list[str]
    unexpected: list[str]
    sizes: Mapping[str, tuple[Sequence[int], Sequence[int]]]


def read_config(source: str, told: Mapping[str, Any]) -> PreTrainedConfig:
    """Return the settings of a checkpoint.

    Parameters
    ----------
    source
        Path of a folder, or a name on the hub.
    told
        Keyword arguments for `transformers`; at least ``trust_remote_code``.

    Raises
    ------
    ModelError
        If its architecture is unknown, or its weights are quantised or in a file of another name.
    """
    config: PreTrainedConfig = AutoConfig.from_pretrained(source, **told)
    if config.model_type not in ARCHITECTURES:
        raise ModelError(
            f"{source}: its architecture is {config.model_type!r}; expected one of "
            f"{', '.join(ARCHITECTURES)}"
        )
    if getattr(config, "quantization_config", None) is not None:
        raise ModelError(f"{source}: its weights are quantised; expected floating-point numbers")
    if (other := getattr(config, "transformers_weights", None)) is not None:
        raise ModelError(
            f"{source}: its config.json takes the weights from {other} (transformers_weights); "
            "expected model.safetensors: rename the file, and leave the setting out"
        )
    config._attn_implementation = choose_attention(config.model_type)
    config.return_dict = True  # some checkpoints ask for tuples instead of named outputs
    return config


def read_weights(source: str, config: PreTrainedConfig, told: Mapping[str, Any]) -> Weights:
    """Return the network of a checkpoint, loaded from safetensors only.

    Parameters
    ----------
    source, told
        As for `read_config`.
    config
        Settings of the checkpoint.

    Raises
    ------
    ModelError
        If there is an adapter beside the weights.
    """
    # It would be loaded over the weights if peft is installed, and hide that some are missing.
    local, revision = told.get("local_files_only", False), told.get("revision")
    if find_adapter_config_file(source, revision=revision, local_files_only=local) is not None:
        raise ModelError(
            f"{source}: holds an adapter of peft ({ADAPTER_CONFIG_NAME}); merge it into the model "
            "(merge_and_unload), and save that as a whole"
        )
    model, found = AutoModelForAudioClassification.from_pretrained(
        source,
        config=config,
        dtype=torch.float32,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
        **told,
    )
    sizes = {name: (own, expected) for name, own, expected in found["mismatched_keys"]}
    missing = {*found["missing_keys"], *sizes}
    return Weights(model, sorted(missing), sorted(found["unexpected_keys"]), sizes)


@contextmanager
def loading(source: str, what: str) -> Iterator[None]:
    """Silence `transformers` within the block, and convert its errors to `ModelError`.

    Otherwise, it logs missing heads and shows progress bars.

    Parameters
    ----------
    source
        Path of a folder, or a name on the hub, for error messages.
    what
        Description of the expected content, for error messages.

    Raises
    ------
    ModelError
        If the block fails.
    """
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    except _FAILURES as error:
        reason = str(error).strip() or type(error).__name__
        # The first line, and the next if it only introduces that.
        first, *rest = (line.strip() for line in reason.splitlines() if line.strip())
        told = f"{first} {rest[0]}" if rest and first.endswith(":") else first
        if "trust_remote_code" in reason:
            told = "it needs code of its own, which is never run"
        raise ModelError(f"{source}: cannot be loaded as {what}: {told}") from error
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
