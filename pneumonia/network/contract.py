"""Names that hold for every weights file of this project. Imports nothing, so that importing a name costs nothing."""

CLASSES = ("NORMAL", "PNEUMONIA")  # in the order of the network's outputs
WEIGHTS_NAME = "pneumonia_classifier.pth"  # of the weights file, in every folder and bucket
ONNX_NAME = "pneumonia_classifier.onnx"  # the ONNX file of the same network, beside the weights file
MAX_WEIGHTS = 128 * 1024 * 1024  # bytes of either file; a ResNet-18 in single precision has 45 million
MANIFEST_NAME = "manifest.json"  # of the manifest beside the weights file of a release
