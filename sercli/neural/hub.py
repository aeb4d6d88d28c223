"""Checkpoints in the layout of Hugging Face: file names, and download from the hub."""

import os
import re
from contextlib import suppress
from pathlib import Path

from sercli.errors import ModelError

# Prefix of a name on the hub.
HUB = "hub:"
CONFIG_FILE = "config.json"
HUB_WEIGHTS_FILE = "model.safetensors"
# One of these describes how a waveform becomes a network's input.
PREPROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# NAME or ORG/NAME.
HUB_NAME = re.compile(r"\w[\w.-]*(/\w[\w.-]*)?")


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder has the layout of Hugging Face.

    Parameters
    ----------
    folder
        Any path.
    """
    return os.path.isfile(folder / CONFIG_FILE)  # does not raise if a name is too long


def fetch_checkpoint(name: str, revision: str | None = None) -> Path:
    """Return the folder of a checkpoint on the hub, downloading it if it is not in the cache.

    Only settings and safetensors are downloaded, nothing that can run code. With
    ``HF_HUB_OFFLINE``, or if the hub cannot be reached, the cache is used.

    Parameters
    ----------
    name
        Name on the hub, such as ``"superb/hubert-base-superb-er"``.
    revision
        Commit, tag or branch; the newest commit by default.

    Returns
    -------
    Path
        Folder in the cache of the hub; its name is the commit.

    Raises
    ------
    ModelError
        If there is no such checkpoint, or it cannot be downloaded.
    """
    from huggingface_hub import hf_hub_download, is_offline_mode
    from huggingface_hub.errors import (
        EntryNotFoundError,
        GatedRepoError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    where = f"{HUB}{name}"
    if not HUB_NAME.fullmatch(name):
        raise ModelError(f"{where}: is not a name on the hub; expected {HUB}NAME or {HUB}ORG/NAME")
    try:
        # All files are taken from the commit of the first.
        folder = Path(hf_hub_download(name, CONFIG_FILE, revision=revision)).parent
        with suppress(RemoteEntryNotFoundError):  # reported when the weights are loaded
            hf_hub_download(name, HUB_WEIGHTS_FILE, revision=folder.name)
        for file in PREPROCESSOR_FILES:
            with suppress(EntryNotFoundError):
                hf_hub_download(name, file, revision=folder.name)
    except GatedRepoError as error:
        raise ModelError(
            f"{where}: is gated; accept its conditions on https://huggingface.co/{name}, then log "
            "in with `hf auth login`"
        ) from error
    except RepositoryNotFoundError as error:
        raise ModelError(
            f"{where}: the hub has no such model, or it is private; check the name, or log in by "
            "`hf auth login`"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelError(
            f"{where}: has no revision {revision}; expected a commit, tag or branch"
        ) from error
    except RemoteEntryNotFoundError as error:
        raise ModelError(
            f"{where}: has no {CONFIG_FILE}; expected a checkpoint in the layout of transformers"
        ) from error
    except Exception as error:  # the underlying network libraries raise errors of their own
        cause = error.__cause__ or error
        reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
        reason = "HF_HUB_OFFLINE is set" if is_offline_mode() else reason.rstrip(".")
        at = f" at revision {revision}" if revision else ""
        option = f" --revision {revision}" if revision else ""
        raise ModelError(
            f"{where}: is not in the cache{at}, and cannot be downloaded: {reason}. Download it "
            f"once with a network (`hf download {name}{option}`), or name a folder that holds it"
        ) from error
    return folder
