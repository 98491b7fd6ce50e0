"""Tests of the scripts at the top."""
