# SPDX-License-Identifier: Apache-2.0
"""A folder of YAML files, one a model, inside the collector; and one of the site's own beside it.

They load from a zip as well. The readers are imported where they read: the delivering service gets its configuration
from a child process, and has no need of them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Generic, TypeVar

T = TypeVar("T")
SUFFIX = ".yaml"


class Library(Generic[T]):
    """The files of `package`; `parse` makes something of a name and what its file says, or raises ValueError."""

    def __init__(self, package: str, parse: Callable[[str, Any], T]) -> None:
        self._package = package
        self._parse = parse
        self._names: tuple[str, ...] | None = None
        self._loaded: dict[str, T] = {}

    def names(self) -> tuple[str, ...]:
        """The models that we know."""
        if self._names is None:
            from importlib import resources

            files = resources.files(self._package).iterdir()
            self._names = tuple(
                sorted(file.name[: -len(SUFFIX)] for file in files if file.name.endswith(SUFFIX))
            )
        return self._names

    def load(self, name: str) -> T:
        """What is known of a model; raises KeyError for one that we do not know."""
        if name not in self._loaded:
            from importlib import resources

            import yaml

            if name not in self.names():
                raise KeyError(name)
            text = resources.files(self._package).joinpath(f"{name}{SUFFIX}").read_text(encoding="utf-8")
            self._loaded[name] = self._parse(name, yaml.safe_load(text))
        return self._loaded[name]

    def own(self, folder: Path, faults: list[str]) -> dict[str, T]:
        """The site's own, files `<name>.yaml` of a folder that may be missing. A file that is none gets a line in
        `faults`. What one of our names means does not depend on the gateway: a site cannot take it."""
        import yaml

        found = {}
        for file in sorted(folder.glob(f"*{SUFFIX}")):
            name = file.name[: -len(SUFFIX)]
            if name in self.names():
                faults.append(f"{file}: {name} is a profile of the collector; give yours another name")
                continue
            try:
                found[name] = self._parse(name, yaml.safe_load(file.read_text(encoding="utf-8")))
            except OSError as error:
                faults.append(f"{file}: cannot be read: {error.strerror}")
            except UnicodeDecodeError:
                faults.append(f"{file}: is not UTF-8 text")
            except yaml.YAMLError as error:
                mark = getattr(error, "problem_mark", None)
                where = f"line {mark.line + 1}: " if mark else ""
                faults.append(f"{file}: {where}not YAML: {getattr(error, 'problem', error)}")
            except (ValueError, TypeError, LookupError) as error:
                faults.append(f"{file}: {error}")
        return found
