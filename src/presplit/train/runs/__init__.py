"""A spec and a directory: what the verbs of the command call."""

from presplit.train.runs.build import Own, Run, build, recipe_of
from presplit.train.runs.directory import STATE, TEACHER, read_run, versions
from presplit.train.runs.judge import judge
from presplit.train.runs.train import train

__all__ = [
    "STATE",
    "TEACHER",
    "Own",
    "Run",
    "build",
    "judge",
    "read_run",
    "recipe_of",
    "train",
    "versions",
]
