"""Errors that the package raises on purpose; everything else is a bug and propagates.

Messages name the path, what was found, what was expected and what to do about it.
"""


class SerError(Exception):
    """Base of every error that this package raises on purpose."""


class AudioError(SerError):
    """A recording cannot be opened, or cannot be decoded to its end."""


class ConfigError(SerError):
    """A setting is out of its range, or two settings exclude each other."""


class DatasetError(SerError):
    """A corpus, a split or a label is not what its reader expects."""


class ModelError(SerError):
    """A model folder is missing, incomplete, altered or of an unknown kind."""


class OutputError(SerError):
    """A result cannot be written where it was asked for."""


class TrainingError(SerError):
    """Training cannot go on."""
