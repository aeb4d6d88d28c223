"""Pre-trained encoders from a folder or from the hub: settings and weights, and no code."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import AutoConfig, AutoModelForAudioClassification, logging

from sercli.errors import ModelError
from sercli.neural.encoders import ARCHITECTURES, AST, WHISPER

PREPROCESSOR = "preprocessor_config.json"
# Of a checkpoint's settings, what says nothing of its encoder.
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
# What a checkpoint may lack: the heads on top of the encoder, which are not used.
HEADS = ("classifier.", "projector.", "layer_weights")
# A name, or that of an organisation and one in it.
_HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


@dataclass(frozen=True, eq=False)
class Base:
    """A pre-trained encoder.

    Parameters
    ----------
    name
        Its name on the hub, or that of its folder.
    settings
        For `sercli.neural.encoders.create_encoder`.
    weights
        By name.
    """

    name: str
    settings: Mapping[str, Any]
    weights: Mapping[str, Tensor]

    @cached_property
    def digest(self) -> str:
        """A hash of its settings and weights."""
        content = blake2b(json.dumps(dict(self.settings), sort_keys=True).encode(), digest_size=16)
        for name, tensor in sorted(self.weights.items()):
            content.update(name.encode())
            content.update(tensor.contiguous().numpy().tobytes())
        return content.hexdigest()


def load_base(base: str, revision: str | None = None) -> Base:
    """Load an encoder.

    Parameters
    ----------
    base
        A folder, or a name on the hub.
    revision
        Of the hub: a commit, tag or branch.

    Raises
    ------
    ModelError
        If there is none, it is of an unknown architecture, it has no safetensors, or weights are
        missing.
    """
    local = Path(base).is_dir()
    if not local and not _HUB_NAME.fullmatch(base):
        raise ModelError(
            f"{base}: there is no such folder; expected one with config.json and "
            "model.safetensors, or a name on the hub, such as openai/whisper-base"
        )
    told: dict[str, Any] = {"trust_remote_code": False}
    told |= {"local_files_only": True} if local else {"revision": revision}
    try:
        with _quiet():
            config = AutoConfig.from_pretrained(base, **told)
            kind = config.model_type
            if kind not in ARCHITECTURES:
                raise ModelError(
                    f"{base}: its architecture is {kind!r}; expected one of "
                    f"{', '.join(ARCHITECTURES)}"
                )
            model, found = AutoModelForAudioClassification.from_pretrained(
                base, config=config, use_safetensors=True, output_loading_info=True, **told
            )
    except (OSError, ValueError) as error:
        raise ModelError(
            f"{base}: cannot be loaded as a pre-trained encoder with its weights as safetensors: "
            f"{str(error).strip().splitlines()[0]}"
        ) from error
    missing = sorted(name for name in found["missing_keys"] if not name.startswith(HEADS))
    if missing:
        raise ModelError(
            f"{base}: lacks weights of its encoder: {', '.join(missing[:3])} ({len(missing)} in "
            "all); expected a checkpoint of the whole encoder"
        )
    encoder = model.encoder if kind == WHISPER else model.base_model
    settings = {key: value for key, value in config.to_diff_dict().items() if key not in APART}
    if kind == AST:
        settings |= _read_standardisation(base, local, revision)
    weights = {name: tensor.float() for name, tensor in encoder.state_dict().items()}
    name = Path(base).resolve().name if local else base
    # As a model folder gives them back.
    return Base(name, json.loads(json.dumps(settings | {"model_type": kind})), weights)


def _read_standardisation(base: str, local: bool, revision: str | None) -> dict[str, float]:
    from huggingface_hub import hf_hub_download

    path = (
        Path(base) / PREPROCESSOR
        if local
        else Path(hf_hub_download(base, PREPROCESSOR, revision=revision))
    )
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        return {"mean": float(data["mean"]), "deviation": float(data["std"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"{os.fspath(path)}: expected the mean and std of the frames that the encoder was "
            f"trained on: {error}"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from reporting on heads that are not there, and from drawing bars."""
    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]
