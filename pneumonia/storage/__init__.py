"""S3: reading by signed requests or by boto3, listing objects, and one translation of what S3 refuses.

Knows nothing of releases or images.
"""
