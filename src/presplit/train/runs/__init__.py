"""A spec and a directory: what the verbs of the command call."""

from presplit.train.runs.run import (
    STATE,
    TEACHER,
    Own,
    Run,
    build,
    judge,
    read_run,
    recipe_of,
    train,
    versions,
)

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
