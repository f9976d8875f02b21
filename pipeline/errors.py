"""What can go wrong, as one tree.

PipelineError                    a person can mend this: the message says how
├── ConfigError                  the experiment file (or a ``--set``) is not valid
│   └── WeightsError             a checkpoint that it names cannot be read
├── AnnotationError              a label, class, box or split file is not valid
├── VideoMissing                 no file or folder where the pattern points
├── RowsMissing                  a head asks for rows that no run has made yet
├── RunFolderError               a run folder is absent, taken, or does not match
└── SubmissionError              a challenge would not take this file

The leaf packages raise builtin errors of their own (``extractors.video.VideoError`` for one); the
pipeline wraps those that concern a whole command and records those that concern one row.
"""

from __future__ import annotations

import os

__all__ = [
    "MENDABLE",
    "AnnotationError",
    "ConfigError",
    "PipelineError",
    "RowsMissing",
    "RunFolderError",
    "SubmissionError",
    "VideoMissing",
    "WeightsError",
    "in_words",
]


class PipelineError(Exception):
    """Base of every error that a command shows without a traceback."""


class ConfigError(PipelineError):
    """The experiment file is not valid."""


class WeightsError(ConfigError):
    """A checkpoint that the experiment file names cannot be read."""


class AnnotationError(PipelineError):
    """A label, class, box or split file is not valid."""


class VideoMissing(PipelineError):
    """No video where the pattern points."""


class RowsMissing(PipelineError):
    """Rows that a head needs are not in the store."""


class RunFolderError(PipelineError):
    """A run folder is absent, taken, or belongs to another experiment."""


class SubmissionError(PipelineError):
    """A challenge would not take this file; says all that is wrong with it."""


# What a message is enough for. Anything else is a mistake of the program and shows its traceback.
MENDABLE = (
    PipelineError,
    ValueError,
    OSError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    ImportError,
)


def in_words(error: Exception) -> str:
    """An error's text; the system's own errors as "file: reason" instead of a number."""
    if isinstance(error, OSError) and error.filename and error.strerror:
        return f"{os.fspath(error.filename)}: {error.strerror}"
    return str(error) or type(error).__name__
