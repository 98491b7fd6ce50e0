"""S3: reading by signed requests or by boto3, listing objects, and turning S3's refusals into sentences.

Knows nothing of releases or images.
"""
