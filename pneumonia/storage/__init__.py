"""S3: signed requests or boto3, objects and their addresses, and one translation of what S3 refuses.

Knows nothing of releases or of HTTP routes; of images only how large one may be.
"""
