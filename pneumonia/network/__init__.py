"""What makes an answer: ResNet-18, its weights file, calibration, input check, heatmap.

Imports only imaging and the modules beside it. Knows nothing of S3, releases or HTTP.
"""
