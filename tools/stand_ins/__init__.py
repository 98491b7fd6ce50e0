"""Servers that stand for AWS, and the events it sends: for tests and benchmarks."""
