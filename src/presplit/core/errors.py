"""Every error a user of Presplit can meet, in one tree.

::

    PresplitError               the command prints it as one sentence and exits with 2
    ├── SpecError               a spec or an option: unknown key, wrong type, value out of range
    ├── PatternError            a degree or density that the pattern family cannot have
    ├── DataError               a data set that is missing, unreadable or not what it claims to be
    ├── GraphError              a model or graph that cannot be sparsified, exported, counted or cut
    ├── BundleError             a bundle that is missing, damaged or not of this version
    ├── PlanError               no plan meets what was asked, or a plan does not fit its bundle
    ├── InputError              the caller's own array has the wrong shape, dtype or values
    ├── EngineError             an engine that fails by itself: no memory, no kernel
    ├── ServerError             a server that cannot start (address, bundle, arguments)
    └── MissingLibrary          an optional library is not installed

The edge raises none of these for what a link or a server does: that becomes an answer's ``why``. A
message states what was expected and what came, with the numbers; the door adds where; the cure ends
it.
"""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Generator
from types import ModuleType


class PresplitError(Exception):
    """Anything that is wrong with what a user asked for; its text is one clear sentence."""


class SpecError(PresplitError):
    """A spec or an option is wrong: an unknown key, a wrong type, a value out of range."""


class PatternError(PresplitError):
    """The pattern family has no pattern of this degree or density."""


class DataError(PresplitError):
    """A data set is missing, unreadable or not what it claims to be."""


class GraphError(PresplitError):
    """A model or ONNX graph cannot be sparsified, exported, counted or cut as asked."""


class BundleError(PresplitError):
    """A bundle is missing, damaged or of another version."""


class PlanError(PresplitError):
    """No plan meets what was asked, or a plan does not fit its bundle."""


class InputError(PresplitError):
    """The caller's own array has the wrong shape, dtype or values."""


class EngineError(PresplitError):
    """The engine could not run a model by its own fault: no memory, no kernel for this machine."""


class ServerError(PresplitError):
    """The tail server cannot start as asked."""


class MissingLibrary(PresplitError):
    """An optional library is not installed; the text says which extra brings it."""


class PresplitWarning(UserWarning):
    """Something that is allowed and probably not meant; the text says the number and the cure."""


@contextlib.contextmanager
def context(where: str) -> Generator[None]:
    """Put ``where`` before the text of any `PresplitError` raised inside.

    ``where`` is a layer, a file or a key path.

    >>> with context("layer fc1"):
    ...     raise PatternError("fan_in must be in 1..5, got 6")
    Traceback (most recent call last):
        ...
    presplit.core.errors.PatternError: layer fc1: fan_in must be in 1..5, got 6
    """
    try:
        yield
    except PresplitError as error:
        raise type(error)(f"{where}: {error}") from error


def library(name: str, *, need: str, extra: str) -> ModuleType:
    """Import an optional library, or say in one sentence what needs it and which extra brings it.

    >>> library("json", need="reading", extra="train").__name__
    'json'
    >>> library("no_such_library", need="exporting", extra="train")  # doctest: +ELLIPSIS
    Traceback (most recent call last):
        ...
    presplit.core.errors.MissingLibrary: exporting needs no_such_library: ...pip install ...
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        # Only now: reading what is installed takes longer than all the rest here.
        from presplit.core.installing import install_line

        raise MissingLibrary(f"{need} needs {name}: {install_line(extra)}") from error
