"""Training starts from weights that exist: published ones, or a run's own, whatever their classes."""

import json
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from boxwright.config import ModelConfig
from boxwright.config.detectors import ClassifierConfig
from boxwright.config.places import find_checkpoint
from boxwright.config.zoo import ZOO, Published
from boxwright.errors import CheckpointError, ConfigError, nearest
from boxwright.models import build_detector
from boxwright.models.checkpoint import FIRST_FORMAT, FORMAT, load_detector, without_pretrained_parts
from boxwright.models.class_rows import Carried, carry_rows, layout_of, match_classes
from boxwright.models.detector import Detector
from boxwright.models.fetching import HUB, config_beside, fetch
from boxwright.models.importing import import_state, read_state, take_our_input

# Model types of transformers' config.json to our names: those whose every tensor is known to have its place.
MODEL_TYPES = {"d_fine": "dfine", "rt_detr_v2": "rtdetr", "detr": "detr"}


@dataclass(frozen=True)
class Source:
    """Weights under our names, and the classes they know; no classes: they aren't known."""

    state: dict[str, Tensor]
    classes: tuple[str, ...]


@dataclass(frozen=True)
class Start:
    """What a model starts from.

    Attributes:
        place: of the weights.
        tensors: that were taken over, whole or in part.
        fresh: our names of tensors that start anew.
        mixed: of tensors that start anew in the rows of some classes.
        classes: what became of the classes.
    """

    place: str
    tensors: int
    fresh: list[str]
    mixed: list[str]
    classes: Carried

    def describe(self) -> str:
        """What was carried over, what starts anew, what was left, in lines."""
        known = {new: old for new, old in self.classes.source.items() if old is not None}
        unknown = [new for new, old in self.classes.source.items() if old is None]
        lines = [f"starts from {self.place}: {self.tensors:,} tensors"]
        if self.fresh:
            lines.append(f"{len(self.fresh):,} tensors start anew: {_few(self.fresh)}")
        pairs = [new if new == old else f"{new} (from {old})" for new, old in known.items()]
        lines.append(f"classes carried over: {_few(pairs) or 'none'}")
        if unknown:
            lines.append(f"classes that start anew: {_few(unknown)}")
        if self.classes.left:
            lines.append(f"classes left behind: {_few(self.classes.left)}")
        return "\n".join(lines)


def load_weights(model: Detector, config: ModelConfig, categories: list[str]) -> Start:
    """Fill a model with the weights that its config names.

    Rows of the classifier are carried over for classes of the same name, or as `class_map` has it; the others
    keep their random start.

    Args:
        model: is changed in place.
        config: whose `weights` isn't None.
        categories: of the model.

    Raises:
        CheckpointError: the weights can't be had, are damaged, or are of another detector.
        ConfigError: `class_map` names a class that isn't there.
    """
    place = config.weights
    assert place is not None
    source = _source_of(place, config)
    old = list(source.classes)
    for before, after in config.class_map.items():
        for name, known, what in ((before, old, "the weights know"), (after, categories, "are learnt")):
            if name not in known:
                raise ConfigError(
                    f"model.class_map: '{name}' isn't among the classes that {what}. {nearest(name, known)}"
                )
    carried = match_classes(old, categories, config.class_map)
    rows = [old.index(name) if name is not None else None for name in carried.source.values()]
    own, filled, fresh, mixed, lost = model.state_dict(), {}, [], [], []
    for name, tensor in own.items():
        given = source.state.get(name)
        if given is None:
            fresh.append(name)
            continue
        with_rows = carry_rows(config.name, name, given, tensor, rows, len(old)) if old else None
        if with_rows is not None:
            filled[name] = with_rows
            mixed += [name] if None in rows else []
        elif given.shape == tensor.shape and (old or not layout_of(config.name, name)):
            filled[name] = given
        elif layout_of(config.name, name):
            fresh.append(name)
        else:
            lost.append(f"{name} {list(given.shape)} there, {list(tensor.shape)} here")
    if lost or not filled:
        raise CheckpointError(
            f"{place}: not of this model: {_few(lost) or 'no tensor has a place here'}. model must describe"
            " the network that the weights are of."
        )
    model.load_state_dict(filled, strict=False)
    fresh = [name for name in fresh if not name.endswith("num_batches_tracked")]
    return Start(place, len(filled), fresh, mixed, carried)


def _source_of(place: str, config: ModelConfig) -> Source:
    if place in ZOO:
        return _foreign(ZOO[place].place, config, ZOO[place])
    path = fetch(place)
    if path.is_dir() or _is_ours(path):
        loaded = load_detector(find_checkpoint(path))
        if isinstance(loaded.config.model, ClassifierConfig) and not isinstance(config, ClassifierConfig):
            state = loaded.model.state_dict()
            return Source({name: t for name, t in state.items() if name.startswith("backbone.")}, ())
        if loaded.config.model.name != config.name:
            raise CheckpointError(
                f"{place}: weights of a {loaded.config.model.name}, and model.name is {config.name}."
            )
        return Source(dict(loaded.model.state_dict()), tuple(loaded.categories))
    return _foreign(place, config, None)


def _is_ours(path: Path) -> bool:
    from safetensors import SafetensorError, safe_open

    if path.suffix != ".safetensors":
        return False
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get("format") in (FORMAT, FIRST_FORMAT)
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: can't be read as safetensors: {error}.") from error


def _foreign(place: str, config: ModelConfig, known: Published | None) -> Source:
    """Weights under another toolbox's names, by way of a model of theirs with as many classes."""
    path = fetch(place)
    toolbox, classes = (known.toolbox, known.classes) if known else (config.weights_from, ())
    if known is not None and known.model["name"] != config.name:
        raise CheckpointError(
            f"{config.weights}: weights of a {known.model['name']}, not of a {config.name}."
        )
    if known is None and place.startswith(HUB):
        toolbox, classes = "transformers", _classes_of(place, config)
    if toolbox is None:
        raise CheckpointError(
            f"{place}: not a checkpoint of boxwright's. model.weights_from names the toolbox whose it is."
        )
    state, bare = read_state(path), without_pretrained_parts(config)
    if not classes:
        # The network alone: what depends on the classes starts anew.
        model = build_detector(bare, 1)
        report = import_state(model, state, config.name, toolbox)
        take_our_input(model, config)
        missing = set(report.missing) | {n for n, _, _ in report.mismatched}
        return Source({n: t for n, t in model.state_dict().items() if n not in missing}, ())
    model = build_detector(bare, len(classes))
    report = import_state(model, state, config.name, toolbox)
    if not report.complete:
        raise CheckpointError(f"{place}: {report.describe()} model must describe the network they are of.")
    take_our_input(model, config)
    return Source(dict(model.state_dict()), classes)


def _classes_of(place: str, config: ModelConfig) -> tuple[str, ...]:
    """The classes that a repository's config.json names."""
    path = config_beside(place)
    if path is None:
        return ()
    try:
        content = json.loads(path.read_bytes())
        kind, names = content.get("model_type"), content.get("id2label", {})
        classes = tuple(str(names[key]) for key in sorted(names, key=int))
    except (ValueError, AttributeError, TypeError) as error:
        raise CheckpointError(f"{place}: its config.json can't be read: {error}") from error
    if kind not in MODEL_TYPES:
        raise CheckpointError(f"{place}: its model_type is '{kind}'. {nearest(str(kind), MODEL_TYPES)}")
    if MODEL_TYPES[kind] != config.name:
        raise CheckpointError(f"{place}: weights of a {MODEL_TYPES[kind]}, and model.name is {config.name}.")
    return classes


def _few(names: list[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names):,} in all)" if len(names) > most else "")
