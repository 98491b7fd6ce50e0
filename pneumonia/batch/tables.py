"""The table of answers: its columns, and writing it."""

import csv
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

from pneumonia.errors import ConfigurationError, in_one_line
from pneumonia.names import in_csv, in_text
from pneumonia.network.prediction import Prediction

COLUMNS = ("file", "prediction", "confidence", "probability_pneumonia", "warnings", "model_version", "error")
NUMBERS = ("confidence", "probability_pneumonia")
Row = list[str | float | None]  # of COLUMNS, without the file


def answer_row(prediction: Prediction) -> Row:
    """Return the row of an image that has an answer."""
    probability = prediction.probabilities["PNEUMONIA"]
    warnings = " ".join(prediction.warnings)
    return [prediction.prediction, prediction.confidence, probability, warnings, prediction.model_version, None]


def error_row(error: str) -> Row:
    """Return the row of an image that has no answer."""
    return [None, None, None, None, None, in_one_line(error)]


def writer(output: Path) -> Callable[[Path, Iterator[Row]], None]:
    """Return the function that writes rows of COLUMNS in the format of a file's ending.

    Raises:
        ConfigurationError: another ending, or Parquet without pyarrow.
    """
    if output.suffix == ".csv":
        return write_csv
    if output.suffix != ".parquet":
        raise ConfigurationError(f"{output} ends with neither .csv nor .parquet: name an output that does.")
    try:
        import pyarrow  # noqa: F401, PLC0415  # before hours of work, not after
    except ImportError as error:
        raise ConfigurationError("Writing Parquet needs pyarrow: pip install pyarrow, or name a .csv.") from error
    return write_parquet


def write_csv(path: Path, rows: Iterator[Row]) -> None:
    """Write rows as CSV; missing values are empty, and names as `names.in_csv` gives them."""
    with path.open("w", encoding="utf-8", errors="backslashreplace", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(COLUMNS)
        lines.writerows([in_csv(str(name)), *row] for name, *row in rows)


def write_parquet(path: Path, rows: Iterator[Row]) -> None:
    """Write rows as Parquet; missing values are null, and names as `names.in_text` gives them."""
    import pyarrow  # noqa: PLC0415  # an extra
    from pyarrow import parquet  # noqa: PLC0415

    schema = pyarrow.schema([(name, pyarrow.float64() if name in NUMBERS else pyarrow.string()) for name in COLUMNS])
    with path.open("wb") as opened, parquet.ParquetWriter(opened, schema) as file:  # whatever bytes its name has
        while part := list(itertools.islice(rows, 50_000)):
            columns = [list(column) for column in zip(*part, strict=True)]
            columns[0] = [in_text(str(name)) for name in columns[0]]
            arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, schema, strict=True)]
            file.write_table(pyarrow.Table.from_arrays(arrays, schema=schema))
