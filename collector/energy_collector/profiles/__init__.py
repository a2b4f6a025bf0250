# SPDX-License-Identifier: Apache-2.0
"""Register maps of real models, one YAML file a model, its source cited in it. They load from a zip as well. A site
can keep maps of its own beside them, in a folder."""

from __future__ import annotations

from functools import cache, lru_cache
from importlib import resources
from pathlib import Path

import yaml

from energy_collector.profile import Profile, parse

SUFFIX = ".yaml"


class ProfileError(ValueError):
    """A file of the site's own that is no profile; the message names the file and its faults in one line."""


@cache
def built_in() -> tuple[str, ...]:
    """The models that we know."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name[: -len(SUFFIX)] for file in files if file.name.endswith(SUFFIX)))


def own(folder: Path) -> dict[str, Path]:
    """The site's own profiles: files `<name>.yaml` of a folder. One that is missing holds none."""
    return {file.name[: -len(SUFFIX)]: file for file in sorted(folder.glob(f"*{SUFFIX}"))}


def names(folder: Path | None = None) -> tuple[str, ...]:
    """All that a meter can name."""
    return tuple(sorted({*built_in(), *(own(folder) if folder else ())}))


def load(name: str, folder: Path | None = None) -> Profile:
    """The profile of a model. Raises KeyError for one that we do not know, ProfileError for a bad file of the
    site's own. Ours come first: what a name means does not depend on the gateway."""
    if name in built_in():
        return _ours(name)
    file = own(folder).get(name) if folder else None
    if file is None:
        raise KeyError(name)
    try:
        # Read once for all meters of the model, and again when it has changed.
        return _theirs(file, file.stat().st_mtime_ns)
    except OSError as error:
        raise ProfileError(f"{file}: cannot be read: {error.strerror}") from error


def check(folder: Path) -> list[str]:
    """The faults of the site's own profiles, a line for each file."""
    faults = []
    for name, file in own(folder).items():
        if name in built_in():
            faults.append(f"{file}: {name} is a profile of the collector; give yours another name")
            continue
        try:
            load(name, folder)
        except ProfileError as error:
            faults.append(str(error))
    return faults


@cache
def _ours(name: str) -> Profile:
    text = resources.files(__name__).joinpath(f"{name}{SUFFIX}").read_text(encoding="utf-8")
    return parse(name, yaml.safe_load(text))


@lru_cache(maxsize=64)
def _theirs(file: Path, _changed: int) -> Profile:
    name = file.name[: -len(SUFFIX)]
    try:
        return parse(name, yaml.safe_load(file.read_text(encoding="utf-8")))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}: " if mark else ""
        raise ProfileError(f"{file}: {where}not YAML: {getattr(error, 'problem', error)}") from error
    except UnicodeDecodeError as error:
        raise ProfileError(f"{file}: is not UTF-8 text") from error
    except (ValueError, TypeError, LookupError) as error:
        raise ProfileError(f"{file}: {error}") from error
