"""The figures that SageMaker reads off a job's log, and which of them a tuning can aim at."""

# CloudWatch's name of a metric to the word that train_model.py logs it under.
METRICS = {
    "train:loss": "train_loss",
    "train:images_per_second": "images_per_second",
    "validation:accuracy": "val_accuracy",
    "validation:loss": "val_loss",
    "validation:auroc": "val_auroc",
    "test:accuracy": "test_accuracy",
    "test:loss": "test_loss",
    "test:auroc": "test_auroc",
    "test:balanced_accuracy": "test_balanced_accuracy",
    "test:sensitivity": "test_sensitivity",
    "test:specificity": "test_specificity",
}
# A test that has chosen the model is no test any more, and the loss in training says nothing about new images.
OBJECTIVES = [name for name in METRICS if name.startswith("validation:")]


def metric_regex(word: str) -> str:
    """Return the pattern by which SageMaker finds a metric in a log line such as `epoch=3 train_loss=0.1234 …`.

    The number has to end with its word: of `1.2e-05` nothing is taken, rather than 1.2.
    """
    return rf"\b{word}=([0-9.]+)(?:\s|$)"


def direction(objective: str) -> str:
    """Return SageMaker's word for which values of an objective are good."""
    return "Minimize" if objective.endswith("loss") else "Maximize"
