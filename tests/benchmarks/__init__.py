"""Tests of the benchmarks that judge a release."""
