"""Releases: the manifest, publishing an archive's model to the bucket, and fetching the served release.

Imports storage and network, never training or serving.
"""
