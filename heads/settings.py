"""How a head is trained: the papers' second stage, in numbers.

Guesses where the paper is silent:
- weight decay is applied to every parameter, biases too;
- an epoch is every segment once, in random order; the last batch may be smaller.

Beyond the papers, and so our choice:
- a rate belongs to a whole epoch, also while it warms up or follows a cosine;
- the warm-up is a straight line that reaches the full rate in the epoch after it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

OPTIMIZERS = ("sgd", "adam", "adamw")
SCHEDULES = ("step", "cosine")
PRECISIONS = ("float32", "bfloat16")


@dataclass(frozen=True)
class TrainSettings:
    """The defaults are the papers' for R-50 and R(2+1)D-34 backbones; for I3D they are a rate of
    1e-3 that falls after epoch 10.

    Args:
        epochs: passes over the training segments.
        batch_size: segments a step.
        optimizer: one of `OPTIMIZERS`.
        learning_rate: of the first epoch after the warm-up.
        warmup_epochs: epochs whose rate rises in a straight line; see `learning_rate_at`.
        schedule: one of `SCHEDULES`: "step" as `decay_epochs` says, "cosine" down towards 0.
        decay_epochs: after each of these epochs (counted from 1) the rate is multiplied by
            `decay_factor`.
        decay_factor: see `decay_epochs`.
        momentum: of sgd.
        nesterov: of sgd.
        betas: of adam and adamw.
        eps: of adam and adamw.
        weight_decay: of every optimizer; adamw applies it apart from the gradient.
        gradient_clip_norm: the gradient of all parameters together is shortened to this l2 norm;
            None leaves it as it is.
        precision: one of `PRECISIONS`, of the forward pass; weights, gradients and validation are
            float32.
        compile: let PyTorch compile the head's forward pass for training.
        seed: of the order of segments and the choice of views; not of the initial weights, which
            the caller brings.

    Raises:
        ValueError: a value outside its range.
    """

    epochs: int = 15
    batch_size: int = 32
    optimizer: str = "sgd"
    learning_rate: float = 1e-4
    warmup_epochs: int = 0
    schedule: str = "step"
    decay_epochs: tuple[int, ...] = ()
    decay_factor: float = 0.1
    momentum: float = 0.9
    nesterov: bool = False
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 1e-4
    gradient_clip_norm: float | None = None
    precision: str = "float32"
    compile: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        clip = self.gradient_clip_norm
        limits = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "optimizer": (self.optimizer in OPTIMIZERS, f"one of {', '.join(OPTIMIZERS)}"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "warmup_epochs": (
                0 <= self.warmup_epochs < self.epochs,
                f"0 to {self.epochs - 1}, less than epochs",
            ),
            "schedule": (self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}"),
            "decay_epochs": (
                all(1 <= epoch < self.epochs for epoch in self.decay_epochs),
                f"epochs from 1 to {self.epochs - 1}",
            ),
            "decay_factor": (self.decay_factor > 0, "above 0"),
            "momentum": (0 <= self.momentum < 1, "0 or more, below 1"),
            "nesterov": (
                not self.nesterov or (self.optimizer == "sgd" and self.momentum > 0),
                "false, or the optimizer sgd with a momentum above 0",
            ),
            "betas": (all(0 <= beta < 1 for beta in self.betas), "two numbers, 0 or more, below 1"),
            "eps": (self.eps > 0, "above 0"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "gradient_clip_norm": (clip is None or clip > 0, "above 0, or none"),
            "precision": (self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}"),
            "seed": (self.seed >= 0, "0 or more"),
        }
        for name, (holds, expected) in limits.items():
            if not holds:
                raise ValueError(f"got {name}={getattr(self, name)}, expected {expected}")
        if self.schedule == "cosine" and self.decay_epochs:
            raise ValueError(
                f"got schedule=cosine with decay_epochs={self.decay_epochs}, expected none: only "
                "the schedule step has them"
            )

    def learning_rate_at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1.

        With w warm-up epochs, epoch e of them has the rate times e / (w + 1). After them the
        cosine starts at the full rate: times (1 + cos(pi (e - 1 - w) / (epochs - w))) / 2.
        """
        warmup = self.warmup_epochs
        if epoch <= warmup:
            return self.learning_rate * epoch / (warmup + 1)
        if self.schedule == "cosine":
            done = (epoch - 1 - warmup) / (self.epochs - warmup)
            return self.learning_rate * (1 + math.cos(math.pi * done)) / 2
        passed = sum(epoch > decay for decay in self.decay_epochs)
        return self.learning_rate * self.decay_factor**passed
