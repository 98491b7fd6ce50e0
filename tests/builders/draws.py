"""Random numbers that a test chooses."""

import torch

from pneumonia.training.augmentation import Draws


class Chosen(Draws):
    """Gives these numbers, from 0 to 1, where random ones are drawn: the low end of a range, the high end, or between.

    Attributes:
        left: those that were not asked for yet.
    """

    def __init__(self, *uniform: float) -> None:
        self.left = self._uniform = iter(torch.tensor(uniform).view(-1, 1, 1, 1, 1))
