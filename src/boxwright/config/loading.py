"""Reading, changing and checking an experiment; a wrong key names the nearest right one."""

import os
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import ValidationError

from boxwright.config.experiment import ExperimentConfig
from boxwright.config.part import Part
from boxwright.errors import ConfigError, nearest

MAX_YAML_BYTES = 4 << 20


def load_config(path: str | os.PathLike, changes: list[str] | None = None) -> ExperimentConfig:
    """Read an experiment and change it.

    Args:
        path: a YAML file.
        changes: `a.b.c=value`; the value is YAML, and `{...}` replaces a whole part.

    Raises:
        ConfigError: the file can't be read, or a key or value is wrong; every fault is named.
    """
    file = Path(path)
    try:
        if file.stat().st_size > MAX_YAML_BYTES:
            raise ConfigError(f"{file}: larger than {MAX_YAML_BYTES:,} bytes.")
        content = yaml.safe_load(file.read_bytes())
    except OSError as error:
        raise ConfigError(f"{file}: can't be read: {error.strerror}.") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise ConfigError(f"{file}: not usable YAML: {' '.join(str(error).split())}.") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: expected keys, {nearest('', ExperimentConfig.model_fields)}")
    return check_config(apply_changes(content, changes or []), str(file))


# Keys of one part of which one is meant at a time.
_IN_PLACE_OF = {"train.epochs": "minutes", "train.minutes": "epochs"}


def apply_changes(content: dict, changes: list[str]) -> dict:
    """A copy of `content` with each `a.b.c=value` put in its place; epochs take the place of minutes, and
    minutes that of epochs.

    Raises:
        ConfigError: a change isn't of that form, or goes through something that has no parts.
    """
    result = _copy(content)
    for change in changes:
        path, equals, text = change.partition("=")
        keys = path.strip().split(".")
        if not equals or not all(keys):
            raise ConfigError(f"--set {change}: expected a.b.c=value.")
        try:
            value = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--set {change}: the value is not YAML.") from error
        place = result
        for depth, key in enumerate(keys[:-1]):
            inner = place.setdefault(key, {})
            if inner is None:
                inner = place[key] = {}
            if not isinstance(inner, dict):
                raise ConfigError(f"--set {change}: {'.'.join(keys[: depth + 1])} has no parts.")
            place = inner
        place[keys[-1]] = value
        if value is not None and path.strip() in _IN_PLACE_OF:
            place.pop(_IN_PLACE_OF[path.strip()], None)
    return result


def check_config(content: dict, place: str) -> ExperimentConfig:
    """Check plain values; `place` is named in errors.

    Raises:
        ConfigError: all faults, a line each.
    """
    try:
        return ExperimentConfig.model_validate(content)
    except ValidationError as error:
        faults = error.errors()
        # A source may be one, a list or a share: that it isn't the others is no news beside another fault.
        told = [f for f in faults if str(f["loc"][-1:]) not in _OTHER_FORM] or faults
        lines = [_explain(fault) for fault in told]
        raise ConfigError("\n".join(f"{place}: {line}" for line in lines)) from error


def dump_config(config: ExperimentConfig) -> str:
    """The whole experiment as YAML, defaults included."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


NUMBER = "constrained-float"  # pydantic's name of a form that a value may have beside parts
_OTHER_FORM = ("('SourceConfig',)", "('list[SourceConfig]',)", f"('{NUMBER}',)")


def _copy(value: Any) -> Any:
    return {k: _copy(v) for k, v in value.items()} if isinstance(value, dict) else value


def _explain(fault: Any) -> str:
    """A pydantic error as a sentence with path, value and what was expected."""
    path = list(fault["loc"])
    shown, part = _walk(path)
    name = ".".join(shown)
    if fault["type"] == "extra_forbidden" and part is not None:
        return f"'{name}' is not a key. {nearest(str(path[-1]), part.model_fields)}"
    if fault["type"] == "missing":
        return f"'{name}' is missing."
    if fault["type"].startswith("union_tag"):
        expected = fault.get("ctx", {}).get("expected_tags", "a name")
        return f"'{name}.name' is {fault['input']!r:.60}, expected one of {expected}."
    return f"'{name}' is {fault['input']!r:.60}: {fault['msg'].removeprefix('Value error, ')}."


def _walk(path: list) -> tuple[list[str], type[Part] | None]:
    """The path without pydantic's own steps (union tags, types), and the part that holds its last key."""
    shown: list[str] = []
    part: type[Part] | None = ExperimentConfig
    holder: type[Part] | None = ExperimentConfig
    variants: dict[str, type[Part]] = {}
    for key in path:
        if key in variants:
            part, variants = variants[key], {}
        elif not str(key).startswith("list[") and key != NUMBER:
            shown.append(str(key))
            holder = part
            if part is not None and key in part.model_fields:
                variants = _variants(part.model_fields[key].annotation)
                part = next(iter(variants.values())) if len(variants) == 1 else None
    return shown, holder


def _variants(annotation: Any) -> dict[str, type[Part]]:
    """The parts a field may hold, by the step that pydantic puts into an error's path for them."""
    parts = list(dict.fromkeys(_parts(annotation)))
    if len(parts) == 1:
        return {parts[0].__name__: parts[0]}
    return {tag: p for p in parts for tag in get_args(p.model_fields["name"].annotation)}


def _parts(annotation: Any) -> list[type[Part]]:
    """The parts that a field may hold."""
    if isinstance(annotation, type) and issubclass(annotation, Part):
        return [annotation]
    if get_origin(annotation) in (Union, UnionType, list, Annotated):
        return [p for a in get_args(annotation) for p in _parts(a)]
    return []
