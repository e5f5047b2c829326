"""Parts of a model, and statistics of its norms, that training leaves as they are."""

from collections.abc import Sequence

from torch import nn

from boxwright.errors import ConfigError, nearest


def freeze(model: nn.Module, parts: Sequence[str]) -> list[nn.Module]:
    """Take the parameters of parts out of training.

    Args:
        model: is changed in place.
        parts: names of its modules: `backbone`, `neck`, `backbone.body.layer1`.

    Returns:
        The parts, whose norms are to stay in eval mode.

    Raises:
        ConfigError: there is no such part, or nothing is left to train.
    """
    modules = dict(model.named_modules())
    for part in parts:
        if part not in modules or not part:
            near = [name for name in modules if name.count(".") <= part.count(".") and name]
            raise ConfigError(f"model.freeze: no part '{part}'. {nearest(part, near)[:300]}")
        modules[part].requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"model.freeze is {list(parts)}: nothing is left to train.")
    return [modules[part] for part in parts]


def carried_norms(model: nn.Module, fresh: Sequence[str]) -> list[nn.Module]:
    """The batch norms of which nothing is among the names `fresh`, that start anew."""
    anew = {name.rpartition(".")[0] for name in fresh}
    return [
        module
        for name, module in model.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and name not in anew
    ]
