"""An answer, as `/predict` sends it and Python returns it. OpenAPI shows the descriptions in the fields' metadata."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pneumonia.imaging.preview import PREVIEW_SIDE


@dataclass(frozen=True)
class Prediction:
    """The answer for one image: the more probable class, its probability, and reasons to doubt it."""

    prediction: str = field(
        metadata={"description": "The more probable class; PNEUMONIA if both probabilities are exactly 0.5."}
    )
    confidence: float = field(metadata={"description": "Calibrated probability of the predicted class, 0.5 to 1."})
    probabilities: dict[str, float] = field(
        metadata={"description": "Calibrated probability of each class, 0 to 1; they sum to 1."}
    )
    model_version: str = field(metadata={"description": "The release that answered."})
    warnings: list[str] = field(
        metadata={
            "description": "Reasons to doubt the answer, in this order. `uncalibrated`: the model's weights came "
            "without a manifest, so that the probability is the network's own, and the class may be another than "
            "with it. `uncertain`: P(PNEUMONIA) is so close "
            "to 0.5 that a small change would have changed the answer, as for a tenth of the validation images. "
            "`not_a_chest_xray`: the image is unlike the radiographs that the model was trained on, and the answer "
            "means nothing. `not_a_frontal_view`: the image is not laid out like an upright frontal chest X-ray, and "
            "the answer means nothing. `inverted`: bright and dark are swapped, and the answer is for the inverted "
            "image. `dicom_not_a_chest_radiograph`: the DICOM header says that this is not a radiograph, or "
            "that it shows another body part. `dicom_not_a_frontal_view`: the DICOM header says that this is a "
            "lateral, oblique or decubitus view. `dicom_for_processing`: the DICOM header says that the pixels are "
            "meant for processing, not for viewing, so the image may look unlike the training images."
        }
    )

    def warned(self, more: Sequence[str]) -> "Prediction":
        """Return the same answer with more warnings."""
        return replace(self, warnings=[*self.warnings, *more]) if more else self


@dataclass(frozen=True)
class Explanation(Prediction):
    """The answer for one image, with a heatmap or a preview if they were asked for."""

    heatmap: str | None = field(
        default=None,
        metadata={
            "description": "With `explain=true`: a PNG in base64, as large as the upright image, to lay over it. The "
            "warmer and more opaque the colour, the more that area supports the answer, beyond what is usual there."
        },
    )
    preview: str | None = field(
        default=None,
        metadata={
            "description": "With `preview=true`: the image as it was decoded, upright, as a JPEG in base64 of at most "
            f"{PREVIEW_SIDE} pixels a side. For files that a browser cannot show, or shows differently."
        },
    )
