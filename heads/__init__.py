"""Heads: small networks over stored features, their training and their evaluation.

Where to look:
    what every head is                     base, registry
    parts of heads                         alignment, gating, relation, pooling, branch
    heads                                  saoa, sap, ablations, detections, lfb, pooled
    samples and their rows                 table, loader
    training                               training, training_*, kept_epochs, optimizer, settings
    files                                  checkpoint, scores, atomic
    evaluation                             evaluation, metrics, protocols, ranking,
                                           class_figures
"""

from heads.base import Batch, Head, HeadConfig, HeadDims
from heads.checkpoint import Checkpoint, load_head, read_checkpoint
from heads.evaluation import score_table, write_evaluation
from heads.loader import open_batches
from heads.metrics import PRIORS, Metrics, action_prior, recognition_metrics
from heads.protocols import PROTOCOLS, Protocol, official_metrics
from heads.registry import create_head, head_class, head_options, list_heads, register_head
from heads.scores import UNLABELLED, Scores, load_scores, save_scores
from heads.settings import TrainSettings
from heads.table import FeatureTable, Sample
from heads.training import TrainResult, train_head
from heads.training_log import EpochReport

__all__ = [
    "PRIORS",
    "PROTOCOLS",
    "UNLABELLED",
    "Batch",
    "Checkpoint",
    "EpochReport",
    "FeatureTable",
    "Head",
    "HeadConfig",
    "HeadDims",
    "Metrics",
    "Protocol",
    "Sample",
    "Scores",
    "TrainResult",
    "TrainSettings",
    "action_prior",
    "create_head",
    "head_class",
    "head_options",
    "list_heads",
    "load_head",
    "load_scores",
    "official_metrics",
    "open_batches",
    "read_checkpoint",
    "recognition_metrics",
    "register_head",
    "save_scores",
    "score_table",
    "train_head",
    "write_evaluation",
]
