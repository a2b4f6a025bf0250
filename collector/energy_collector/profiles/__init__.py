# SPDX-License-Identifier: Apache-2.0
"""Register maps of real models, one YAML file a model, its source cited in it. They load from a zip as well. A site
can keep maps of its own beside them, in a folder.

The readers are imported where they read: the delivering service gets its configuration from a child process, and has no
need of them.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

from energy_collector.meters.profile import Profile
from energy_collector.meters.profile_file import parse

SUFFIX = ".yaml"


@cache
def names() -> tuple[str, ...]:
    """The models that we know."""
    from importlib import resources

    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name[: -len(SUFFIX)] for file in files if file.name.endswith(SUFFIX)))


@cache
def load(name: str) -> Profile:
    """The profile of a model; raises KeyError for one that we do not know."""
    from importlib import resources

    import yaml

    if name not in names():
        raise KeyError(name)
    text = resources.files(__name__).joinpath(f"{name}{SUFFIX}").read_text(encoding="utf-8")
    return parse(name, yaml.safe_load(text))


def own(folder: Path, faults: list[str]) -> dict[str, Profile]:
    """The site's own profiles, files `<name>.yaml` of a folder that may be missing. A file that is none gets a line in
    `faults`. What one of our names means does not depend on the gateway: a site cannot take it."""
    import yaml

    found = {}
    for file in sorted(folder.glob(f"*{SUFFIX}")):
        name = file.name[: -len(SUFFIX)]
        if name in names():
            faults.append(f"{file}: {name} is a profile of the collector; give yours another name")
            continue
        try:
            found[name] = parse(name, yaml.safe_load(file.read_text(encoding="utf-8")))
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
