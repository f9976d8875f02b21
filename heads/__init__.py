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
