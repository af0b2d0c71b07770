"""A spec and a directory: what the verbs of the command call."""

from presplit.train.runs.build import Own, Run, build
from presplit.train.runs.directory import (
    MODEL,
    STATE,
    TEACHER,
    UNFINISHED,
    read_run,
    spec_file,
    versions,
)
from presplit.train.runs.judge import judge
from presplit.train.runs.start import laid_on_start, notes
from presplit.train.runs.train import train

__all__ = [
    "MODEL",
    "STATE",
    "TEACHER",
    "UNFINISHED",
    "Own",
    "Run",
    "build",
    "judge",
    "laid_on_start",
    "notes",
    "read_run",
    "spec_file",
    "train",
    "versions",
]
