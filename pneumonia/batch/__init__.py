"""Classify many X-rays: folders, prefixes and manifests, and S3 Batch Operations.

Only the commands import this package.
"""
