# SPDX-License-Identifier: Apache-2.0
"""Register maps of real models, one YAML file a model, its source cited in it. They load from a zip as
well."""

from __future__ import annotations

from functools import cache
from importlib import resources

from energy_collector.profile import Profile, parse


@cache
def names() -> tuple[str, ...]:
    """The models that we know."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(file.name[: -len(".yaml")] for file in files if file.name.endswith(".yaml")))


@cache
def load(name: str) -> Profile:
    """The profile of a model; raises KeyError for one that we do not know."""
    # Imported here as in `config`.
    import yaml

    if name not in names():
        raise KeyError(name)
    text = resources.files(__name__).joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return parse(name, yaml.safe_load(text))
