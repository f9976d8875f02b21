"""Every head straight from the papers' equations: float64, clip by clip and object by object, with
nothing factored out and no padding. Numbers of equations are those of the thesis, chapter 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from heads.base import Batch, Head

Vector = NDArray[np.float64]
Result = tuple[Vector, Vector | None]  # logits, attention


@dataclass(frozen=True)
class Clip:
    """One clip without its padded objects. ``gap``: by stream. ``f_o``: of all real objects;
    ``local``: of the real local ones, with ``roi``: by stream, their regions.
    """

    gap: Mapping[str, Vector]
    f_o: list[Vector]
    local: list[Vector]
    roi: Mapping[str, list[Vector]]


@dataclass(frozen=True)
class Branch:
    """The weights of one branch by their names in the head, and the head's options."""

    weights: Mapping[str, NDArray[np.float64]]
    options: Mapping[str, Any]

    def affine(self, name: str, x: Vector) -> Vector:
        return self.weights[f"{name}.weight"] @ x + self.weights[f"{name}.bias"]

    def aligned(self, f: Vector, f_o: Vector) -> Vector:
        """Eq 3.1 and 3.2: ReLU(W f + W_o f_o + b); with rescaling as section 3.3.2 says."""
        both = concatenated(f, f_o, rescale=self.options["l2_rescale"])
        return np.maximum(self.affine("alignment.linear", both), 0)

    def gate(self, f_g: Vector) -> Vector:
        """Eq 3.4 and 3.7."""
        return 1 / (1 + np.exp(-self.affine("gate.linear", f_g)))

    def attended(self, h: list[Vector], f_g: Vector, channels: int) -> tuple[Vector, Vector]:
        """Eq 3.9 to 3.11: softmax(f_g A B hᵀ) h."""
        A, B = self.weights["relation.query.weight"].T, self.weights["relation.key.weight"]
        scores = np.array([f_g @ A @ B @ h_i for h_i in h])
        if self.options.get("scale_scores"):
            scores = scores / np.sqrt(channels // 4)
        if not h:
            return np.zeros(channels), scores
        a = np.exp(scores) / np.exp(scores).sum()
        return sum((a_i * h_i for a_i, h_i in zip(a, h, strict=True)), np.zeros(channels)), a

    def classified(self, f_a: Vector) -> Vector:
        return self.affine("classifier", f_a)


def concatenated(f: Vector, other: Vector, *, rescale: bool) -> Vector:
    """[f; f_o], or |f| · [f/|f|; f_o/|f_o|]."""
    if not rescale:
        return np.concatenate([f, other])
    return np.linalg.norm(f) * np.concatenate([unit(f), unit(other)])


def unit(f: Vector) -> Vector:
    length = np.linalg.norm(f)
    return f / length if length > 0 else f


def symbiotic(
    branch: Branch, h: list[Vector], query: Vector, gating: Vector | None, channels: int
) -> Result:
    """Section 3.2.4 on aligned objects."""
    if gating is not None:
        g = branch.gate(gating)
        h = [g * h_i for h_i in h]  # eq 3.5 and 3.8
    f_a, a = branch.attended(h, query, channels)
    return branch.classified(f_a), a


def local(branch: Branch, clip: Clip, stream: str) -> list[Vector]:
    return [branch.aligned(f, f_o) for f, f_o in zip(clip.roi[stream], clip.local, strict=True)]


def everywhere(branch: Branch, clip: Clip, stream: str) -> list[Vector]:
    return [branch.aligned(clip.gap[stream], f_o) for f_o in clip.f_o]


OTHER = {"verb": "noun", "noun": "verb"}


def saoa(branch: Branch, clip: Clip, stream: str) -> Result:
    h = (local if stream == "verb" else everywhere)(branch, clip, stream)
    other = clip.gap[OTHER[stream]]
    return symbiotic(branch, h, other, other, len(clip.gap[stream]))


def sap(branch: Branch, clip: Clip, stream: str) -> Result:
    other = clip.gap[OTHER[stream]]
    h = everywhere(branch, clip, stream)
    return symbiotic(branch, h, other, other, len(clip.gap[stream]))


def local_noun(branch: Branch, clip: Clip, stream: str) -> Result:
    other = clip.gap[OTHER[stream]]
    return symbiotic(branch, local(branch, clip, stream), other, other, len(clip.gap[stream]))


def no_csg(branch: Branch, clip: Clip, stream: str) -> Result:
    h = (local if stream == "verb" else everywhere)(branch, clip, stream)
    return symbiotic(branch, h, clip.gap[stream], None, len(clip.gap[stream]))


def no_gating(branch: Branch, clip: Clip, stream: str) -> Result:
    h = (local if stream == "verb" else everywhere)(branch, clip, stream)
    return symbiotic(branch, h, clip.gap[OTHER[stream]], None, len(clip.gap[stream]))


def no_cross_stream(branch: Branch, clip: Clip, stream: str) -> Result:
    h = (local if stream == "verb" else everywhere)(branch, clip, stream)
    own = clip.gap[stream]
    return symbiotic(branch, h, own, own, len(own))


def no_arm(branch: Branch, clip: Clip, stream: str) -> Result:
    h = (local if stream == "verb" else everywhere)(branch, clip, stream)
    g = branch.gate(clip.gap[OTHER[stream]])
    return branch.classified(mean([g * h_i for h_i in h], len(g))), None


def mean(vectors: list[Vector], channels: int) -> Vector:
    return sum(vectors, np.zeros(channels)) / max(len(vectors), 1)


def largest(vectors: list[Vector], channels: int) -> Vector:
    return np.max(vectors, axis=0) if vectors else np.zeros(channels)


def object_channels(branch: Branch, beside: int = 0) -> int:
    return branch.weights["classifier.weight"].shape[1] - beside


def pooled(branch: Branch, clip: Clip, stream: str) -> Result:
    return branch.classified(clip.gap[stream]), None


def fusion(branch: Branch, clip: Clip, stream: str) -> Result:
    own, other = clip.gap[stream], clip.gap[OTHER[stream]]
    both = concatenated(own, other, rescale=branch.options["l2_rescale"])
    return branch.classified(both), None


def beside_largest(branch: Branch, clip: Clip, stream: str) -> Result:
    own = clip.gap[stream]
    bank = largest(clip.f_o, object_channels(branch, len(own)))
    return branch.classified(concatenated(own, bank, rescale=branch.options["l2_rescale"])), None


def detections_mean(branch: Branch, clip: Clip, stream: str) -> Result:
    return branch.classified(mean(clip.f_o, object_channels(branch))), None


def detections_max(branch: Branch, clip: Clip, stream: str) -> Result:
    return branch.classified(largest(clip.f_o, object_channels(branch))), None


def detections_attended(branch: Branch, clip: Clip, stream: str) -> Result:
    h = clip.f_o
    if branch.options["project"]:
        h = [np.maximum(branch.affine("alignment.linear", f_o), 0) for f_o in h]
    other = clip.gap[OTHER[stream]]
    return symbiotic(branch, h, other, other, object_channels(branch))


BranchReference = Callable[[Branch, Clip, str], Result]

REFERENCES: dict[str, tuple[BranchReference, BranchReference]] = {
    "detections_attended": (saoa, detections_attended),
    "detections_max": (pooled, detections_max),
    "detections_mean": (pooled, detections_mean),
    "fusion": (fusion, fusion),
    "lfb_max": (beside_largest, beside_largest),
    "noun_detections": (pooled, beside_largest),
    "pooled": (pooled, pooled),
    "saoa": (saoa, saoa),
    "saoa_local_noun": (saoa, local_noun),
    "saoa_no_arm": (no_arm, no_arm),
    "saoa_no_cross_stream": (no_cross_stream, no_cross_stream),
    "saoa_no_csg": (no_csg, no_csg),
    "saoa_no_gating": (no_gating, no_gating),
    "sap": (sap, sap),
}
"""By head: how its verb and its noun branch are computed."""


def reference(head: Head, batch: Batch) -> tuple[Batch, list[dict[str, Vector]]]:
    """What a head of float64 must answer.

    Returns:
        Logits as of ``forward``, and per clip and attending branch the weights of its real objects.
    """
    verb, noun = REFERENCES[head.name]
    logits: dict[str, list[Vector]] = {"verb": [], "noun": []}
    attention: list[dict[str, Vector]] = []
    for number in range(len(batch["object_mask"])):
        clip = _clip(batch, number)
        attention.append({})
        for stream, function in (("verb", verb), ("noun", noun)):
            answer, weights = function(_branch(head, stream), clip, stream)
            logits[stream].append(answer)
            if weights is not None:
                attention[-1][stream] = weights
    return {name: torch.from_numpy(np.stack(rows)) for name, rows in logits.items()}, attention


def _branch(head: Head, stream: str) -> Branch:
    return Branch(
        {
            name.removeprefix(f"{stream}."): parameter.detach().numpy()
            for name, parameter in head.named_parameters()
            if name.startswith(f"{stream}.")
        },
        head.config.options,
    )


def _clip(batch: Batch, number: int) -> Clip:
    rows = {name: tensor[number].detach().numpy() for name, tensor in batch.items()}
    N, N_local = len(rows["object_mask"]), len(rows["verb_roi"])
    start = (N - N_local) // 2
    real = [i for i in range(N) if rows["object_mask"][i]]
    inside = [i for i in real if start <= i < start + N_local]
    return Clip(
        gap={stream: rows[f"{stream}_gap"] for stream in OTHER},
        f_o=[rows["object_features"][i] for i in real],
        local=[rows["object_features"][i] for i in inside],
        roi={stream: [rows[f"{stream}_roi"][i - start] for i in inside] for stream in OTHER},
    )
