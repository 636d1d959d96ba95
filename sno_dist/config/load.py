"""From a YAML file and `section.key=value` overrides to a checked `Config`, and back."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sno_dist.config.schema import Config
from sno_dist.errors import ConfigError

__all__ = ["differences", "dump", "flatten", "load_config", "run_folder", "shards_folder"]


def load_config(path: str | Path | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read a config.

    Args:
        path: A YAML file; none: the defaults.
        overrides: `section.key=value`, the value in YAML; the last one wins.

    Raises:
        ConfigError: If the file is unreadable, or a key or value is wrong; the message names
            the dotted path and, for an unknown key, the nearest valid one.
    """
    tree = _read(Path(path)) if path else {}
    for override in overrides:
        _apply(tree, override)
    _tag(tree, Config)
    _check_booleans(tree, Config)
    try:
        return Config.model_validate(tree)
    except ValidationError as error:
        raise _explain(error, path) from None


def dump(config: BaseModel) -> str:
    """The resolved config as YAML, every default spelled out."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False)


def flatten(config: BaseModel, prefix: str = "", *, said: set[str] | None = None) -> dict[str, Any]:
    """Dotted key -> plain value, for hashing and comparing.

    Args:
        config: A section, or all of them.
        prefix: Its own key.
        said: Of these fields alone, and no more of them than was set: no defaults; none: all.
    """
    if said is None:
        return dict(_leaves(config.model_dump(mode="json"), prefix))
    tree = config.model_dump(mode="json", include=said, exclude_unset=True)
    return {key: value for key, value in _leaves(tree, prefix) if value != {}}


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One `key: old -> new` line for each dotted key that differs."""
    keys = sorted(old.keys() | new.keys())
    return [
        f"{key}: {old.get(key, '(none)')} -> {new.get(key, '(none)')}"
        for key in keys
        if old.get(key) != new.get(key)
    ]


def run_folder(config: Config) -> Path:
    """The run's folder."""
    return Path(config.run or f"runs/{config.name}").expanduser()


def shards_folder(config: Config) -> str:
    """The shards' folder or URL."""
    return os.path.expanduser(config.shards.path or f"data_shards/{config.name}")


def _leaves(value: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and value:
        for key, child in value.items():
            yield from _leaves(child, f"{prefix}.{key}" if prefix else key)
    else:
        yield prefix, value


def _read(path: Path) -> dict[str, Any]:
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError("the config cannot be read", where=path, got=error.strerror) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError("the config is not YAML", where=path, got=str(error)) from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise ConfigError("the config is not a mapping of sections", where=path, got=type(tree))
    return tree


def _apply(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            "an override is not of the form section.key=value",
            got=override,
            fix="for example training.steps=500",
        )
    *parents, last = key.split(".")
    for parent in parents:
        if tree.get(parent) is None:  # a section that is named and left empty
            tree[parent] = {}
        if not isinstance(child := tree[parent], dict):
            raise ConfigError("an override goes below a plain value", where=key, got=child)
        tree = child
    try:
        tree[last] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError("an override's value is not YAML", where=key, got=text) from error


def _tag(tree: dict[str, Any], section: type[BaseModel]) -> None:
    """Where a choice is set in part and its kind is left out, the default's kind is meant."""
    for key, value in tree.items():
        field = section.model_fields.get(key)
        if field is None or not isinstance(value, dict):
            continue
        if "kind" in getattr(type(field.default), "model_fields", ()):
            value.setdefault("kind", field.default.kind)
        for member in _meant(value, field.annotation):
            _tag(value, member)


def _check_booleans(tree: dict[str, Any], section: type[BaseModel], place: str = "") -> None:
    """YAML reads off, no and false as a boolean, and pydantic that as 0."""
    for key, value in tree.items():
        field = section.model_fields.get(key)
        if field is None:
            continue
        if isinstance(value, dict):
            for member in _meant(value, field.annotation):
                _check_booleans(value, member, f"{place}{key}.")
            continue
        values = value if isinstance(value, list) else [value]
        if any(isinstance(one, bool) for one in values) and not _is_switch(field.annotation):
            raise ConfigError(
                "a setting is wrong",
                where=f"{place}{key}",
                got=value,
                expected="no boolean, as which YAML reads on, off, yes and no",
            )


def _is_switch(annotation: Any) -> bool:
    return annotation is bool or any(map(_is_switch, get_args(annotation)))


def _meant(value: Mapping[str, Any], annotation: Any) -> list[type[BaseModel]]:
    """The section that a mapping is of; where there is a choice, the one of its kind."""
    return [
        member
        for member in _sections(annotation)
        if "kind" not in member.model_fields or value.get("kind") in _tags(member)
    ]


def _explain(error: ValidationError, path: object) -> ConfigError:
    first = _foremost(error.errors())
    parts = [str(part) for part in first["loc"]]
    # an unknown key may be of any form
    unknown = [parts.pop()] if first["type"] == "extra_forbidden" else []
    # pydantic names the type of a choice between plain ones, such as constrained-float
    place = [name for name in parts if "-" not in name and "[" not in name] + unknown
    where = ".".join(place) + (f" in {path}" if path else "")
    if unknown:
        known = _known_keys(place[:-1])
        near = difflib.get_close_matches(place[-1], known, n=1, cutoff=0.4)
        return ConfigError(
            "unknown key",
            where=where,
            expected=f"one of {', '.join(known)}",
            fix=f"did you mean {near[0]}?" if near else None,
        )
    return ConfigError(
        "a setting is wrong", where=where, got=repr(first["input"])[:80], expected=first["msg"]
    )


def _foremost(errors: Sequence[ErrorDetails]) -> ErrorDetails:
    """The first error; of a choice between types, that of the type that was meant."""
    beside = errors[0]["loc"][:-1]
    meant = [
        error
        for error in errors
        if error["loc"][: len(beside)] == beside and not error["type"].endswith("_type")
    ]
    return meant[0] if meant else errors[0]


def _known_keys(place: Sequence[str]) -> list[str]:
    """The keys of the section at `place`; after a tagged union the path names the member."""
    members: list[type[BaseModel]] = [Config]
    for part in (name for name in place if not name.isdigit()):
        tagged = [m for m in members if "kind" in m.model_fields and part in _tags(m)]
        fields = members[0].model_fields
        members = tagged or _sections(fields[part].annotation)
    return list(members[0].model_fields)


def _tags(section: type[BaseModel]) -> tuple[str, ...]:
    return get_args(section.model_fields["kind"].annotation)


def _sections(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [section for part in get_args(annotation) for section in _sections(part)]
