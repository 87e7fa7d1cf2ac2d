# One image for Prefect's server, MLflow's server and the worker: all of them in the versions of requirements.lock.
# The worker runs the code of the checkout that is mounted at /project, so the image changes only with the lock file.
FROM python:3.11.15-slim-bookworm

RUN apt-get update \
    && apt-get install --yes --no-install-recommends "git=1:2.39.*" \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home clha \
    && mkdir --mode=1777 /state

# An index with torch for CPUs makes the image some GB smaller; see docs/deployment.md.
ARG PIP_EXTRA_INDEX_URL=""
WORKDIR /build
COPY pyproject.toml requirements.lock README.md ./
RUN pip install --no-cache-dir --constraint requirements.lock ".[stack]"

# Prefect's UI would ask a host outside at every visit.
COPY flows/quiet_ui.py ./
RUN python quiet_ui.py

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DO_NOT_TRACK=1 \
    DVC_NO_ANALYTICS=1 \
    MLFLOW_DISABLE_TELEMETRY=true
WORKDIR /project
USER 10001:10001
