# One image for every process. ACCELERATOR is cpu or cuda.
FROM python:3.11-slim
ARG ACCELERATOR=cpu
# vLLM compiles small kernels when it starts.
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ libnuma1 && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home tokenyard
WORKDIR /opt/tokenyard
COPY pyproject.toml README.md LICENSE ./
COPY requirements requirements
COPY scripts scripts
COPY platform platform
COPY deployments deployments
COPY billing billing
RUN ACCELERATOR="$ACCELERATOR" PIP_NO_CACHE_DIR=1 python scripts/setup.py && rm -rf build
ENV PATH=/opt/tokenyard/.venv/bin:$PATH PYTHONUNBUFFERED=1
USER 1000
CMD ["tokenyard", "--help"]
