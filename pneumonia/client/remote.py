"""A server of the API, to be used like a loaded model."""

import uuid
from collections.abc import Iterator, Sequence

from pneumonia.client.address import Address
from pneumonia.client.answers import detail_of, prediction_of
from pneumonia.client.server import Server, may_pass
from pneumonia.errors import ImageError, file_sentence
from pneumonia.imaging.reading import read_file
from pneumonia.network.prediction import Prediction


class RemoteClassifier:
    """Classifies images by asking a server, one request per image.

    Args:
        address: the server's.

    Raises:
        ServerError: the AWS configuration cannot be used.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._server = Server(address)

    def predict_many(self, files: Sequence[str]) -> Iterator[Prediction | ImageError]:
        """Return for each file the answer, or the error why it has none, while they are iterated over.

        Raises:
            ServerError: the server cannot be reached, or would refuse any image.
        """
        return map(self._answer_or_error, files)

    def _answer_or_error(self, file: str) -> Prediction | ImageError:
        try:
            return self.predict(read_file(file))
        except ImageError as error:
            return error
        except OSError as error:
            return ImageError(file_sentence(error))

    def predict(self, image: bytes) -> Prediction:
        """Classify one image.

        Args:
            image: a file's bytes.

        Raises:
            ImageError: the server does not answer for this image.
            ServerError: it cannot be reached, or would refuse any image.
        """
        body, content_type = form_of(image)
        response = self._server.ask("POST", "/predict", {"Content-Type": content_type}, body)
        if response.status_code < 300:
            return prediction_of(self._address, response)
        refusal = self._server.refusal(response)
        if detail_of(response) or response.status_code == 413 or may_pass(response):
            raise ImageError(str(refusal))  # the next image may have an answer
        raise refusal


def form_of(image: bytes) -> tuple[bytes, str]:
    """Return a form with an image as its field `file`, and its Content-Type.

    The file's own name stays here: it may name a patient, and the API does not use it.
    """
    boundary = uuid.uuid4().hex
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="xray"\r\n\r\n'
    return head.encode() + image + f"\r\n--{boundary}--\r\n".encode(), f"multipart/form-data; boundary={boundary}"
