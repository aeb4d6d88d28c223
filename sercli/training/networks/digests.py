"""Short hashes of what a training depends on, by which checkpoints and caches are recognised."""

import hashlib

from sercli.training.cache import CachedClips


def digest_audio(cached: CachedClips) -> str:
    """Return a short hash of the audio of clips and their lengths at 16 kHz.

    The hash of a clip's audio alone does not depend on its sample rate, which a file header may
    have had wrong; the lengths do.
    """
    return digest(repr((cached.hashes, cached.lengths)).encode())


def digest_facts(cached: CachedClips) -> str:
    """Return a short hash of the clips' names, speakers and labels."""
    facts = [(clip.name, clip.voice, clip.emotion) for clip in cached.clips]
    return digest(repr(facts).encode(errors="surrogateescape"))


def digest(content: bytes) -> str:
    """Return a short hash of a content."""
    return hashlib.blake2b(content, digest_size=8).hexdigest()
