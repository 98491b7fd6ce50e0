"""Answers for many X-rays: folders, prefixes and manifests, and S3 Batch Operations.

The top of the house: nothing imports it but the commands.
"""
