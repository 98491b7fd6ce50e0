"""What every weights file of this project agrees on. Imports nothing, so that whoever needs a name pays for no more."""

CLASSES = ("NORMAL", "PNEUMONIA")  # in the order of the network's outputs
WEIGHTS_NAME = "pneumonia_classifier.pth"  # the weights file, in every folder and bucket
