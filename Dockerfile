# One image for every process. ACCELERATOR is cpu or cuda.
FROM python:3.11-slim AS build
ARG ACCELERATOR=cpu
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN python scripts/setup.py --accelerator "$ACCELERATOR" --venv /opt/tokenyard --wheel

FROM python:3.11-slim
# vLLM compiles small kernels at start.
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ libnuma1 && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 1000 --create-home tokenyard
COPY --from=build /opt/tokenyard /opt/tokenyard
ENV PATH=/opt/tokenyard/bin:$PATH PYTHONUNBUFFERED=1
USER 1000
CMD ["tokenyard", "--help"]
