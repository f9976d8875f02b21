"""One pass over the training segments: forward, loss, step, and an eye on the numbers.

On a GPU nothing waits for the result of a step: losses and hits stay there and are looked at now
and then. The first loss that is not finite still names its own batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.optim import Optimizer

from heads.base import Batch, Head
from heads.loader import batches_of, open_batches
from heads.settings import TrainSettings
from heads.table import FeatureTable

CHECK_STEPS = {"cpu": 1, "cuda": 64}
BRANCHES = ("verb", "noun")


@dataclass(frozen=True)
class PassNumbers:
    """Means over the segments of a pass, of each batch before its step."""

    loss: float
    verb_top1: float
    noun_top1: float


@dataclass(frozen=True)
class Learner:
    """A head with what trains it.

    Args:
        head: on `device`.
        forward: the head itself, or its compiled form.
        optimizer: of the head's parameters.
        settings: precision, clipping, batches, seed and rates.
        device: where the head is.
    """

    head: Head
    forward: Callable[[Batch], Batch]
    optimizer: Optimizer
    settings: TrainSettings
    device: torch.device

    def train_pass(self, table: FeatureTable, epoch: int) -> PassNumbers:
        """Train on every segment once; order and views are a function of seed and epoch.

        Args:
            table: of segments with labels that the head knows.
            epoch: counted from 1.

        Raises:
            FloatingPointError: the loss or the weights are no longer finite; it names the batch.
        """
        generator = np.random.default_rng((self.settings.seed, epoch))
        order = generator.permutation(len(table))
        views = table.draw_views(generator)
        groups = batches_of(order, self.settings.batch_size)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate_at(epoch)
        self.head.train()
        labels = table.labels(order, device=self.device)
        tally = _Tally(epoch, table, groups, self.device)
        requests = [(indices, views[indices]) for indices in groups]
        with open_batches(table, requests, device=self.device) as batches:
            for step, batch in enumerate(batches):
                start = step * self.settings.batch_size
                of_batch = {
                    name: labels[name][start : start + len(groups[step])] for name in labels
                }
                loss, logits = self.step(batch, of_batch)
                tally.add(step, loss, logits, of_batch)
        return tally.close(self.head)

    def step(self, batch: Batch, labels: Batch) -> tuple[Tensor, Batch]:
        """Learn from one batch; return its loss and its logits before the step."""
        settings = self.settings
        with torch.autocast(
            self.device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"
        ):
            logits = self.forward(batch)
            loss = self.head.loss(logits, labels)
        self.optimizer.zero_grad()
        loss.backward()
        if settings.gradient_clip_norm is not None:
            clip_grad_norm_(self.head.parameters(), settings.gradient_clip_norm)
        self.optimizer.step()
        return loss.detach(), logits


class _Tally:
    """Losses and hits of a pass, kept on the device."""

    def __init__(
        self,
        epoch: int,
        table: FeatureTable,
        groups: Sequence[NDArray[np.int64]],
        device: torch.device,
    ) -> None:
        self._epoch, self._table, self._groups = epoch, table, groups
        self._check_steps = CHECK_STEPS[device.type]
        self._losses = torch.zeros(len(groups), device=device)
        self._hits = torch.zeros(len(BRANCHES), dtype=torch.int64, device=device)

    def add(self, step: int, loss: Tensor, logits: Batch, labels: Batch) -> None:
        self._losses[step] = loss
        hits = [(logits[name].argmax(1) == labels[name]).sum() for name in BRANCHES]
        self._hits += torch.stack(hits)
        if (step + 1) % self._check_steps == 0:
            self._check(step + 1 - self._check_steps, step + 1)

    def close(self, head: Head) -> PassNumbers:
        """The numbers of the whole pass, once losses and weights are known to be finite."""
        losses = self._check(0, len(self._groups))
        # A step can break the weights after a finite loss; the next batch would show it, but the
        # last one of an epoch has none.
        if not all(_is_finite(parameter.detach()) for parameter in head.parameters()):
            raise self._not_finite("NaN or infinite weights", len(self._groups) - 1)
        sizes = np.array([len(indices) for indices in self._groups])
        verb, noun = (self._hits.cpu().numpy() / sizes.sum()).tolist()
        return PassNumbers(float(losses @ sizes / sizes.sum()), verb, noun)

    def _check(self, start: int, stop: int) -> NDArray[np.float64]:
        losses = self._losses[start:stop].cpu().numpy().astype(np.float64)
        bad = np.flatnonzero(~np.isfinite(losses))
        if len(bad):
            raise self._not_finite(f"a loss of {losses[bad[0]]}", start + int(bad[0]))
        return losses

    def _not_finite(self, what: str, step: int) -> FloatingPointError:
        ids = ", ".join(self._table.segment_ids(self._groups[step]))
        return FloatingPointError(
            f"got {what} in epoch {self._epoch} from the batch of segments {ids}; check their "
            "features or lower the learning rate"
        )


def _is_finite(tensor: Tensor) -> bool:
    """Whether all of it is: its extremes are NaN if anything is. No tensor as large is made."""
    return bool(torch.stack(tensor.aminmax()).isfinite().all())
