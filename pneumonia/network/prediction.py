"""An answer, as `/predict` sends it and Python gets it. What a field means stands in its metadata: OpenAPI shows it."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from pneumonia.imaging.preview import PREVIEW_SIDE


@dataclass(frozen=True)
class Prediction:
    """The answer for one image.

    P(PNEUMONIA) is calibrated, and the release's operating point decides, not 0.5. So `confidence` is below 0.5 where
    P(PNEUMONIA) lies between the two.
    """

    prediction: str = field(
        metadata={"description": "PNEUMONIA where P(PNEUMONIA) reaches the release's operating point, NORMAL below it."}
    )
    confidence: float = field(
        metadata={
            "description": "Calibrated probability of the predicted class, 0 to 1. Below 0.5 where P(PNEUMONIA) lies "
            "between 0.5 and the operating point."
        }
    )
    probabilities: dict[str, float] = field(
        metadata={"description": "Calibrated probability of each class, 0 to 1; they sum to 1."}
    )
    model_version: str = field(metadata={"description": "The release that answered."})
    warnings: list[str] = field(
        metadata={
            "description": "Reasons to doubt the answer. `uncertain`: P(PNEUMONIA) is so near to the operating point "
            "that a little more or less would have changed the answer, as for a tenth of the validation images. "
            "`not_a_chest_xray`: the image is unlike the radiographs that the model was trained on, and the answer "
            "means nothing. "
            "`dicom_not_a_chest_radiograph`: by the DICOM header this is no radiograph, or of another body part. "
            "`dicom_not_a_frontal_view`: by the DICOM header it is a lateral, oblique or decubitus view. "
            "Several may stand there, in this order."
        }
    )

    def warned(self, more: Sequence[str]) -> "Prediction":
        """Return the same answer with more warnings."""
        return replace(self, warnings=[*self.warnings, *more]) if more else self


@dataclass(frozen=True)
class Explanation(Prediction):
    """The answer for one image, with what else was asked for about it."""

    heatmap: str | None = field(
        default=None,
        metadata={
            "description": "With `explain=true`: a PNG in base64, as large as the image, upright, to be laid over it. "
            "The warmer and the more opaque, the more a place speaks for the answer (class activation map)."
        },
    )
    preview: str | None = field(
        default=None,
        metadata={
            "description": "With `preview=true`: the image as it was understood, upright, as a JPEG in base64 of at "
            f"most {PREVIEW_SIDE} pixels a side. For files that a browser does not show, or shows otherwise."
        },
    )
