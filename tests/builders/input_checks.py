"""Input checks that were never fitted."""

import dataclasses

import torch
from torch import Tensor

from pneumonia.network.input_check import FEATURES, InputCheck, encoded


def a_check(components: Tensor) -> InputCheck:
    """Return an input check of mean 0 and scale 1, with these directions, of shape (directions, FEATURES)."""

    def text(array: Tensor) -> str:
        return encoded(array.numpy().tobytes())

    return InputCheck(text(torch.zeros(FEATURES)), text(torch.ones(FEATURES)), text(components.half()), 1.0, 0.15)


INPUT_CHECK = dataclasses.asdict(a_check(torch.zeros(1, FEATURES)))
