"""What can go wrong, as one tree.

PipelineError                    a person can mend this: the message says how
├── ConfigError                  the experiment file (or a ``--set``) is not valid
├── AnnotationError              a label, class, box or split file is not valid
├── VideoMissing                 no file or folder where the pattern points
├── RowsMissing                  a head asks for rows that no run has made yet
└── RunFolderError               a run folder is absent, taken, or does not match

The leaf packages raise builtin errors of their own (``extractors.video.VideoError`` for one); the
pipeline wraps those that concern a whole command and records those that concern one row.
"""

from __future__ import annotations

__all__ = [
    "AnnotationError",
    "ConfigError",
    "PipelineError",
    "RowsMissing",
    "RunFolderError",
    "VideoMissing",
]


class PipelineError(Exception):
    """Base of every error that a command shows without a traceback."""


class ConfigError(PipelineError):
    """The experiment file is not valid."""


class AnnotationError(PipelineError):
    """A label, class, box or split file is not valid."""


class VideoMissing(PipelineError):
    """No video where the pattern points."""


class RowsMissing(PipelineError):
    """Rows that a head needs are not in the store."""


class RunFolderError(PipelineError):
    """A run folder is absent, taken, or belongs to another experiment."""
