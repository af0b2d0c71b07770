"""Modules of a user's folder, under names of our own.

A user's ``json.py``, ``types.py`` or second ``model.py`` has a name that a loaded module has
already. So the modules of a folder are imported as parts of a package that only we name, and what
they import from beside themselves is found there too, while they are being loaded. Neither
``sys.path`` nor the names of other modules change.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import sysconfig
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType


@contextlib.contextmanager
def beside(folder: Path) -> Iterator[str]:
    """The name of the package that ``folder`` is; inside, its modules find each other by name."""
    package = package_of(folder)
    if package not in sys.modules:
        spec = importlib.machinery.ModuleSpec(package, None, is_package=True)
        spec.submodule_search_locations = [str(folder)]
        sys.modules[package] = importlib.util.module_from_spec(spec)
    finder = _Finder(folder, package)
    hidden = {name: module for name, module in sys.modules.items() if finder.hides(name, module)}
    for name in hidden:
        del sys.modules[name]
    sys.meta_path.insert(0, finder)
    try:
        yield package
    finally:
        sys.meta_path.remove(finder)
        for name in finder.served:
            sys.modules.pop(name, None)
        sys.modules.update(hidden)


def package_of(folder: Path) -> str:
    """The name of the package that ``folder`` is: one that no other module has."""
    number = hashlib.sha256(str(folder).encode(errors="replace")).hexdigest()[:12]
    return f"_presplit_of_{number}"


def is_there(folder: Path, name: str) -> bool:
    """Whether ``folder`` holds a module or a package of this name."""
    is_package = (folder / name).is_dir() and any((folder / name).glob("*.py"))
    return is_package or (folder / f"{name}.py").is_file()


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the modules of one folder, except those that bear a name of the standard library.

    Others need these, and ``import types`` of a user's module means Python's.
    """

    def __init__(self, folder: Path, package: str) -> None:
        self.folder, self.package = folder, package
        self.served: list[str] = []

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """The module of the folder under its private name, if it is one of these."""
        if not self._is_ours(name) or importlib.util.find_spec(f"{self.package}.{name}") is None:
            return None
        self.served.append(name)
        return importlib.machinery.ModuleSpec(name, _Alias(f"{self.package}.{name}"))

    def hides(self, name: str, module: ModuleType) -> bool:
        """Whether a loaded module stands in the way: neither installed nor of Python's own."""
        if not self._is_ours(name) or name.partition(".")[0] == "__main__":
            return False
        file = str(getattr(module, "__file__", None) or "")
        paths = sysconfig.get_paths()
        return not file.startswith(tuple(paths[key] for key in ("stdlib", "purelib", "platlib")))

    def _is_ours(self, name: str) -> bool:
        top = name.partition(".")[0]
        foreign = top in sys.stdlib_module_names or top == "presplit" or top.startswith("_presplit")
        return not foreign and is_there(self.folder, top)


class _Alias(importlib.abc.Loader):
    """Gives a module that is loaded under another name, and leaves it as it is."""

    def __init__(self, name: str) -> None:
        self.name = name

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        """The module itself."""
        module = importlib.import_module(self.name)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """Undo what importing under the second name wrote into the module."""
        module.__spec__ = self.spec
