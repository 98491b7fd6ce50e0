"""Ask a server of the API: `predict --url`.

Only the commands import this package.
"""
