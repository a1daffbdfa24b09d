"""The errors that this library raises on purpose.

Every message says three things: what was expected, what was found, and what to do about it.
"""


class AgetfError(Exception):
    """Base of every error that the library raises on purpose."""


class ConfigError(AgetfError):
    """A configuration file, an override or a combination of settings cannot be used."""


class DataError(AgetfError):
    """A file or table that came in from outside, or a stored table, is not what it must be."""


class DamagedFileError(DataError, ValueError):
    """A file that the library wrote no longer holds what it wrote: cut, or its bytes changed.

    A ValueError, too: whoever can do without the file catches it as the one of its parser.
    """


class WeightsError(AgetfError):
    """A checkpoint is absent, fails verification, or does not fit the network."""


class StageError(AgetfError):
    """A stage cannot run, or has to stop: an input is missing, or too much of it failed."""


class UnavailableError(StageError):
    """Something that a stage needs does not answer; it may by itself, without anybody's doing."""


class StorageError(StageError):
    """Nothing can be written: the disk is full, read-only, broken, or its owner forbids it."""


class DeviceLostError(UnavailableError):
    """A GPU is gone, or dead to this process; another process may find it well."""
