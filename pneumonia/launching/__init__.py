"""Launch a training job on SageMaker: check its channels, declare it to the SDK, create it, and watch it to its end.

Only train_sagemaker.py imports it. No job and no image ships it.
"""
