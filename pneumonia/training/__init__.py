"""Everything that happens to labelled images: channels, augmentation, fitting, metrics, evaluation.

A training job ships this room, network and imaging. Never imports storage, releases, serving or batch.
"""
