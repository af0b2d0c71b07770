"""A spec and a directory: what the verbs of the command call."""

from presplit.train.runs.about import About, about
from presplit.train.runs.build import Own, Run, build, loaded
from presplit.train.runs.check import check
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
from presplit.train.runs.pieces import pieces_of
from presplit.train.runs.sharing import take_part
from presplit.train.runs.start import laid_on_start, notes
from presplit.train.runs.train import train

__all__ = [
    "MODEL",
    "STATE",
    "TEACHER",
    "UNFINISHED",
    "About",
    "Own",
    "Run",
    "about",
    "build",
    "check",
    "judge",
    "laid_on_start",
    "loaded",
    "notes",
    "pieces_of",
    "read_run",
    "spec_file",
    "take_part",
    "train",
    "versions",
]
