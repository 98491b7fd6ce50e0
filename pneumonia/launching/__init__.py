"""Launching a training job on SageMaker: its channels checked, it declared to the SDK, created, and watched to its end.

Only train_sagemaker.py imports it. No job and no image ships it.
"""
