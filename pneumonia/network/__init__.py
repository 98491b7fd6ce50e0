"""What an answer is made of: ResNet-18, its weights file, calibration, input check, heatmap.

Imports imaging and the ground floor alone. Knows nothing of S3, releases or HTTP.
"""
