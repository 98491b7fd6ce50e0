# The inference image for AWS Lambda: PyTorch for CPUs, the pinned requirements, the files that serving needs.
# No weights: a cold start fetches the served release from S3, so that promoting a model takes no new image.
ARG BASE_IMAGE=public.ecr.aws/lambda/python:3.13
FROM ${BASE_IMAGE}
WORKDIR ${LAMBDA_TASK_ROOT}

# The ordinary index has CUDA builds of torch for Linux, gigabytes that Lambda has no use for. Of two equal versions pip
# takes the one with a local tag, here +cpu. Empty, the ordinary index serves alone.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu

# Before the code, so that a change of code installs nothing again.
COPY requirements.txt ./
# What is taken away again serves a laptop (uvicorn), or torch where it compiles: `benchmarks/packages.py` lists what the
# functions import, and tests/test_dockerfile.py holds that nothing else is left.
RUN pip install --no-cache-dir ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} --requirement requirements.txt \
 && pip uninstall --yes uvicorn click h11 idna filelock fsspec jinja2 markupsafe mpmath networkx setuptools sympy

# The threads of a process share one heap: 10 MB less, and no slower, where one network runs at a time.
ENV MALLOC_ARENA_MAX=1

# Exactly what the functions import, of which each has a handler here: app.py predicts, promote_model.py promotes,
# pneumonia/s3_batch.py answers S3 Batch Operations.
# tests/test_dockerfile.py holds this.
COPY app.py promote_model.py ./
COPY pneumonia/__init__.py pneumonia/calibration.py pneumonia/codestream.py pneumonia/coldstart.py \
     pneumonia/detector.py pneumonia/dicom.py pneumonia/errors.py pneumonia/files.py pneumonia/fused.py \
     pneumonia/heatmap.py pneumonia/image.py pneumonia/input_check.py pneumonia/manifest.py pneumonia/model.py \
     pneumonia/objects.py pneumonia/page.py pneumonia/predictor.py pneumonia/s3.py pneumonia/s3_batch.py \
     pneumonia/store.py pneumonia/telemetry.py pneumonia/weights.py ./pneumonia/

# What a browser is shown: the page, and the guides that it links to.
COPY pneumonia/static ./pneumonia/static/
COPY docs/model-card.md docs/training.md ./docs/
COPY docs/model-card ./docs/model-card/

# Lambda runs as a user without rights, whatever the modes in the checkout were, on a read-only file system, where Python
# could not keep byte code. The import is the proof that nothing is missing.
RUN chmod -R a+rX . \
 && python -m compileall -q . \
 && python -c "import app, promote_model, pneumonia.s3_batch as batch; app.handler, promote_model.handler, batch.handler"

CMD ["app.handler"]
