"""Releases: manifest and key names, the way from an archive into the bucket, and back to what is served.

Imports storage and network, never training or serving.
"""
