"""Chest X-ray classification: what training, promotion and inference share."""

import warnings

# Serving does without numpy, and torch would tell so at every cold start.
warnings.filterwarnings("ignore", message="Failed to initialize NumPy")

WEIGHTS_NAME = "pneumonia_classifier.pth"  # the weights file, in every folder and bucket
