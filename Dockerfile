# The inference image for AWS Lambda: PyTorch for CPUs, the pinned requirements, the files that serving needs.
# No weights: a cold start fetches the served release from S3, so that promoting a model takes no new image.
# AWS's base image, unless a build names another. Dependabot reads `FROM`, but no build argument.
ARG BASE_IMAGE=aws
FROM public.ecr.aws/lambda/python:3.13 AS aws
FROM ${BASE_IMAGE}
WORKDIR ${LAMBDA_TASK_ROOT}

# The ordinary index has CUDA builds of torch for Linux, gigabytes that Lambda has no use for. Of two equal versions pip
# takes the one with a local tag, here +cpu. Empty, the ordinary index serves alone.
ARG TORCH_INDEX_URL=https://download.pytorch.org/whl/cpu

# Before the code, so that a change of code installs nothing again.
COPY requirements.txt ./
# What is taken away again serves a laptop (uvicorn), or torch where it compiles: `benchmarks/packages.py` lists what the
# functions import, and tests/deployment/test_dockerfile.py holds that nothing else is left.
RUN pip install --no-cache-dir ${TORCH_INDEX_URL:+--extra-index-url "$TORCH_INDEX_URL"} --requirement requirements.txt \
 && pip uninstall --yes uvicorn click h11 idna filelock fsspec jinja2 markupsafe mpmath networkx setuptools sympy

# The threads of a process share one heap: 10 MB less, and no slower, where one network runs at a time.
ENV MALLOC_ARENA_MAX=1

# The doors of the functions and the rooms behind them: app.py predicts, promote_model.py promotes,
# pneumonia/batch/s3_operations.py answers S3 Batch Operations. Training stays outside.
COPY app.py promote_model.py ./
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
# could not keep byte code. The import is the proof that nothing is missing.
RUN chmod -R a+rX . \
 && python -m compileall -q . \
 && python -c "import app, promote_model, pneumonia.batch.s3_operations as batch; app.handler, promote_model.handler, batch.handler"

CMD ["app.handler"]
