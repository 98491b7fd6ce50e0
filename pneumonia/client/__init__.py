"""Ask a server of the API: `predict --url`, and `open`, which signs what a browser sends to a Function URL.

Only the commands import this package.
"""
