"""What runs the network: PyTorch or ONNX Runtime, behind one interface (`network.outputs.Engine`).

Nothing else may import torch or onnxruntime in order to serve. Reading releases and answering requests stay outside.
"""
