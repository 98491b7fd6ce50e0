"""The engines, which run the network: PyTorch and ONNX Runtime, behind one interface (`network.outputs.Engine`).

What serves imports torch and onnxruntime through this folder alone. Reading releases and answering requests are done
elsewhere.
"""
