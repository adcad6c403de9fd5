"""The errors that users see.

Every error that bad input can cause derives from `ResnetToolsError`; the command line prints it as one
message without a traceback. A message says where, what was expected, what was found and what to do.
"""

from __future__ import annotations


class ResnetToolsError(Exception):
    """The base of all errors that bad input causes, made of one message, or of several where several things are wrong.

    `str(error)` is the whole text, a message per line. A name in a message may hold newlines; only `args` tell.
    """

    exit_code = 1

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class Terminated(BaseException):
    """A signal, by its number, asked the process to stop: SIGTERM, SIGINT, or SIGHUP of a lost terminal. Like
    KeyboardInterrupt it is not an Exception, so code that turns the errors of decoders and libraries into ours does
    not catch it."""

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number  # as a shell reports a process that the signal ended


class Note(UserWarning):
    """What was chosen where the user left a choice; nothing is wrong."""


class T7Error(ResnetToolsError):
    """A file is not a readable Lua Torch file; the message gives the byte offset and what was read there."""


class ModuleError(ResnetToolsError):
    """A Lua value is not a network, or one of its modules has a field that no network can have."""


class RecognitionError(ResnetToolsError):
    """A network is not a residual net that `Architecture` can express; the message names the module."""


class CheckpointError(ResnetToolsError):
    """A file is not a checkpoint that can be loaded, or its weights do not fit its architecture."""


class DownloadError(ResnetToolsError):
    """A model cannot be fetched, or what was fetched is not the one that was asked for."""


class ImageError(ResnetToolsError):
    """An image cannot be decoded; the message names the file and the reason."""


class LoadingError(ResnetToolsError):
    """The threads or processes that load images failed: a library's error, or too little memory."""


class NotFiniteError(ImageError):
    """A net's output for an image is NaN or infinite."""


class FeatureError(ResnetToolsError):
    """Features cannot be extracted or written, or an unfinished extraction belongs to another job."""


class LockedError(ResnetToolsError):
    """Another process is writing in a folder that allows one writer at a time."""


class ProcessError(ResnetToolsError):
    """The processes of a job cannot find each other, or one of them ended before the others."""

    exit_code = 75  # so that the launcher can tell it from a process that failed by itself


class DataError(ResnetToolsError):
    """A folder or file of a data set is missing, empty or does not fit; the message names what."""


class HistoryError(ResnetToolsError):
    """A history or log cannot be read; the message names the file and the line."""


class TrainingError(ResnetToolsError):
    """Training cannot begin, go on or resume; the message says what to change."""


class OptionError(TrainingError):
    """Options of a training contradict each other, name what is not there, or would destroy a run."""

    exit_code = 2


class DeviceMemoryError(ResnetToolsError):
    """The device does not have enough memory for so many images at once."""


class ExportError(ResnetToolsError):
    """A net cannot be written in a format, or the written file does not compute the same."""
