"""File names of the published corpora."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class NameScheme:
    """Scheme by which a corpus names its files.

    Parameters
    ----------
    example
        Example of a name.
    pattern
        Regular expression for the end of a path without suffix; its named groups are the
        annotations.
    name
        Format of a clip's name from the groups; without it, the name of the file without suffix.
    others
        Names of folders whose files are named alike, but hold no speech.
    """

    example: str
    pattern: str
    name: str = ""
    others: frozenset[str] = frozenset()

    def match(self, path: Path) -> re.Match[str] | None:
        """Return the match of a path with the pattern, or None."""
        return re.fullmatch(f"(?:.*?/)?{self.pattern}", path.absolute().with_suffix("").as_posix())

    def clip_name(self, path: Path, match: re.Match[str]) -> str:
        """Return the name of a clip."""
        return self.name.format(**match.groupdict()) if self.name else path.stem


# Folder of the laryngograms in EmoDB 2.0, and the first part of the names of their tables.
LARYNGO = "laryngo"

SCHEMES: Mapping[str, NameScheme] = {
    "cremad": NameScheme(
        "1001_DFA_ANG_XX.wav",
        r"(?P<speaker>\d{4})_(?P<sentence>[A-Z]{3})_(?P<emotion>[A-Z]{3})"
        r"_(?P<intensity>LO|MD|HI|XX|X)",
    ),
    "ravdess": NameScheme(
        "03-01-05-01-02-01-12.wav",
        r"(?P<modality>0[123])-(?P<channel>0[12])-(?P<emotion>\d{2})-(?P<intensity>0[12])"
        r"-(?P<sentence>0[12])-(?P<repetition>0[12])-(?P<speaker>\d{2})",
    ),
    "tess": NameScheme(
        "OAF_back_angry.wav", r"(?P<speaker>[OY]AF?)_(?P<sentence>[A-Za-z]+)_(?P<emotion>[A-Za-z]+)"
    ),
    "savee": NameScheme(
        "DC/a01.wav",
        r"(?P<speaker>DC|JE|JK|KL)[/_](?P<emotion>[a-z]{1,2})(?P<number>\d{2})",
        # The release has a folder for each speaker, and the same file names in each.
        name="{speaker}_{emotion}{number}",
    ),
    "emodb": NameScheme(
        "03a01Fa.wav",
        r"(?P<speaker>\d{2})(?P<sentence>[ab]\d{2})(?P<emotion>[A-Z])[a-z]?",
        others=frozenset({LARYNGO}),
    ),
    "emovo": NameScheme(
        "dis-f1-b1.wav", r"(?P<emotion>[a-z]{3})-(?P<speaker>[fm]\d)-(?P<sentence>[a-z]\d)"
    ),
    "esd": NameScheme(
        "0011/Angry/0011_000351.wav",
        r"(?P<emotion>[^/]+)/(?:(?P<split>train|evaluation|test)/)?(?P<speaker>00\d{2})_\d{6}",
    ),
    "iemocap": NameScheme(
        "Ses01F_impro01_F000.wav",
        r"(?P<session>Ses\d{2})[FM]_(?P<type>impro|script)\w+_(?P<letter>[FM])\d{3}",
    ),
    "meld": NameScheme(
        "train_splits/dia0_utt0.mp4",
        r"(?:(?P<outer>[^/]+)/)?(?P<inner>[^/]+)/(?P<stem>dia\d+_utt\d+)",
    ),
}
