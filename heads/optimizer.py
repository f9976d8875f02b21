"""Optimizers by name, and what they remember as plain tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from heads.settings import TrainSettings


def create_optimizer(parameters: Iterable[nn.Parameter], settings: TrainSettings) -> Optimizer:
    """The optimizer that the settings name.

    Args:
        parameters: on the device they train on.
        settings: its own settings; those of other optimizers are not looked at.
    """
    rate, decay = settings.learning_rate, settings.weight_decay
    if settings.optimizer == "sgd":
        return SGD(
            parameters,
            lr=rate,
            momentum=settings.momentum,
            nesterov=settings.nesterov,
            weight_decay=decay,
            fused=True,  # one pass over the weights instead of five
        )
    adam = {"adam": Adam, "adamw": AdamW}[settings.optimizer]
    return adam(
        parameters,
        lr=rate,
        betas=settings.betas,
        eps=settings.eps,
        weight_decay=decay,
        fused=True,
    )


def optimizer_tensors(module: nn.Module, optimizer: Optimizer) -> dict[str, Tensor]:
    """What an optimizer remembers: `<what>.<parameter>` → tensor, such as `exp_avg.noun.weight`.

    Args:
        module: all of whose parameters the optimizer has, and no others.
        optimizer: before its first step it remembers nothing.
    """
    return {
        f"{what}.{name}": value
        for name, parameter in module.named_parameters()
        for what, value in optimizer.state[parameter].items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(
    module: nn.Module, optimizer: Optimizer, tensors: Mapping[str, Tensor]
) -> None:
    """Give an optimizer back what `optimizer_tensors` said.

    Args:
        module: as there.
        optimizer: made with the same settings; changed in place.
        tensors: on any device.
    """
    numbers = {name: number for number, (name, _) in enumerate(module.named_parameters())}
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        what, _, name = key.partition(".")
        state.setdefault(numbers[name], {})[what] = value
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})
