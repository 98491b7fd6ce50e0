# The inference image for AWS Lambda: an engine, the pinned requirements, the files that serving needs.
# No weights: a cold start fetches the served release from S3, so that promoting a model takes no new image.

# torch: PyTorch runs the network, and promotion is included. onnx: ONNX Runtime runs it, without PyTorch or promotion.
ARG ENGINE=torch
# AWS's base image, unless a build names another. Dependabot reads `FROM`, but no build argument.
ARG BASE_IMAGE=aws
FROM public.ecr.aws/lambda/python:3.13 AS aws
FROM ${BASE_IMAGE} AS base
WORKDIR ${LAMBDA_TASK_ROOT}

# Packages before the code, so that a change of code installs nothing again. The packages that are uninstalled serve a
# laptop (uvicorn), or parts of an engine that compile: `benchmarks/packages.py` lists what the functions import, and
# tests/deployment/test_image.py checks that nothing else is left.

FROM base AS torch
# The ordinary index has CUDA builds of torch for Linux, gigabytes that Lambda has no use for. Of two equal versions pip
# takes the one with a local tag, here +cpu. Empty, the ordinary index serves alone.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu
COPY requirements.txt ./
RUN --mount=type=bind,source=tools,target=/tmp/tools \
    pip install --no-cache-dir ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} --requirement requirements.txt \
 && pip uninstall --yes uvicorn click h11 idna flatbuffers packaging filelock fsspec jinja2 markupsafe mpmath networkx \
        setuptools sympy \
 && python /tmp/tools/slim_packages.py
COPY promote_model.py ./

FROM base AS onnx
COPY requirements-onnx.txt ./
RUN --mount=type=bind,source=tools,target=/tmp/tools \
    pip install --no-cache-dir --requirement requirements-onnx.txt \
 && pip uninstall --yes uvicorn click h11 idna flatbuffers packaging protobuf \
 && python /tmp/tools/slim_packages.py

FROM ${ENGINE}
ARG ENGINE
# The threads of a process share one heap: 10 MB less, and no slower, where one network runs at a time. ONNX Runtime's
# telemetry is off.
ENV ENGINE=${ENGINE} MALLOC_ARENA_MAX=1 ORT_DISABLE_TELEMETRY=1

# The functions' handlers and the folders that they import: app.py predicts, pneumonia/batch/s3_operations.py answers S3
# Batch Operations, and promote_model.py, which only the image of torch has, promotes. Training is left out.
COPY app.py ./
COPY pneumonia/*.py ./pneumonia/
COPY pneumonia/imaging ./pneumonia/imaging/
COPY pneumonia/network ./pneumonia/network/
COPY pneumonia/engines ./pneumonia/engines/
COPY pneumonia/storage ./pneumonia/storage/
COPY pneumonia/releases ./pneumonia/releases/
COPY pneumonia/serving ./pneumonia/serving/
COPY pneumonia/batch ./pneumonia/batch/

# The guides that the page links to.
COPY docs/model-card.md docs/training.md ./docs/
COPY docs/model-card ./docs/model-card/

# Lambda runs as a user without rights, whatever the modes in the checkout were, on a read-only file system, where Python
# could not keep byte code. The imports are the proof that nothing is missing.
RUN chmod -R a+rX . \
 && python -m compileall -q . \
 && python -c "import app, pneumonia.batch.s3_operations as batch; app.handler, batch.handler" \
 && if [ -f promote_model.py ]; then python -c "import promote_model; promote_model.handler"; fi

CMD ["app.handler"]
