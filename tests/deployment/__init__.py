"""Tests of image, stack, workflows and make's commands."""
