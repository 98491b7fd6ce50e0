"""From a file's bytes to pixels and to the network's input: the one definition that training and serving share.

Knows nothing of the network, of releases or of HTTP.
"""
