"""How a head is trained: the papers' second stage, in numbers.

Guesses where the paper is silent:
- weight decay is applied to every parameter, biases too;
- an epoch is every segment once, in random order; the last batch may be smaller.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class TrainSettings:
    """SGD with momentum. The defaults are the papers' for R-50 and R(2+1)D-34 backbones; for I3D
    they are a rate of 1e-3 that falls after epoch 10.

    Args:
        epochs: passes over the training segments.
        batch_size: segments a step.
        learning_rate: of the first epoch.
        decay_epochs: after each of these epochs (counted from 1) the rate is multiplied by
            `decay_factor`.
        decay_factor: see `decay_epochs`.
        momentum: of SGD.
        weight_decay: of SGD.
        seed: of the order of segments and the choice of views; not of the initial weights, which
            the caller brings.
    """

    epochs: int = 15
    batch_size: int = 32
    learning_rate: float = 1e-4
    decay_epochs: tuple[int, ...] = ()
    decay_factor: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 1e-4
    seed: int = 0

    def __post_init__(self) -> None:
        limits = {
            "epochs": (self.epochs >= 1, "at least 1"),
            "batch_size": (self.batch_size >= 1, "at least 1"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "decay_epochs": (
                all(1 <= epoch < self.epochs for epoch in self.decay_epochs),
                f"epochs from 1 to {self.epochs - 1}",
            ),
            "decay_factor": (self.decay_factor > 0, "above 0"),
            "momentum": (0 <= self.momentum < 1, "0 or more, below 1"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "seed": (self.seed >= 0, "0 or more"),
        }
        for name, (holds, expected) in limits.items():
            if not holds:
                raise ValueError(f"got {name}={getattr(self, name)}, expected {expected}")

    def learning_rate_at(self, epoch: int) -> float:
        """Learning rate of an epoch, counted from 1."""
        passed = sum(epoch > decay for decay in self.decay_epochs)
        return self.learning_rate * self.decay_factor**passed
