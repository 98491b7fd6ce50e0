"""A job that was created: whatever fails from then on names it."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from pneumonia.command import this_python
from pneumonia.errors import TrainingError, first_line
from pneumonia.storage.refusals import refusals_as

# As SageMaker's API spells them in the names of its calls and fields.
TRAINING, TUNING = "TrainingJob", "HyperParameterTuningJob"
WORDS = {TRAINING: "Training job", TUNING: "Tuning job"}


@dataclass(frozen=True)
class Launched:
    """A training or tuning job in SageMaker.

    Attributes:
        kind: TRAINING or TUNING.
        name: the job's.
        region: where it runs.
    """

    kind: str
    name: str
    region: str

    def __str__(self) -> str:
        """Return what it is and its name."""
        return f"{WORDS[self.kind]} {self.name}"

    @property
    def command(self) -> str:
        """The command that watches it again."""
        return f"{this_python()} train_sagemaker.py --attach {self.name} --region {self.region}"

    @contextlib.contextmanager
    def named_in_failures(self, what: str, go_on: str = "Go on with") -> Iterator[None]:
        """Have each failure say what became of the job, and how to go on.

        Args:
            what: what is known of the job and what failed, such as "goes on, but it cannot be watched".
            go_on: what the command is for, which watches the job again.

        Raises:
            TrainingError: anything failed; the sentence has AWS's own reason.
            KeyboardInterrupt: the user ended it; the text is the sentence to print.
        """
        known, command = f"{self} {what}", f"{go_on} `{self.command}`."
        try:
            with refusals_as(TrainingError, known, service="AWS"):
                yield
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"{self} was created and goes on in SageMaker. {command}") from None
        except TrainingError as error:
            raise TrainingError(f"{error} {command}") from error
        except Exception as error:  # the job's name matters more than where our own code broke
            raise TrainingError(f"{known}: {type(error).__name__}, {first_line(error)}. {command}") from error
