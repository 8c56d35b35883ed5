# syntax=docker/dockerfile:1
# One image for everything: the service, the pipeline, the workers; with EXTRAS=chatbot also the chatbot.
# Its steps run without Docker too, in tests/deploy/test_image.py, so the two cannot drift apart.
ARG PYTHON=3.11

FROM python:${PYTHON}-slim-bookworm AS build
WORKDIR /app
ARG EXTRAS="llm mcp ml postgresql snowflake streaming tracing"
ENV UV_COMPILE_BYTECODE=1 UV_LINK_MODE=copy UV_NO_PROGRESS=1
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY requirements-uv.lock requirements.lock deploy/image-tools.lock pyproject.toml README.md LICENSE ./
# .tools stays behind in this stage. Every package comes from the lock, with its hash.
RUN python3 -m venv --without-pip .venv && python3 -m venv .tools \
 && .tools/bin/pip install --quiet --no-cache-dir --require-hashes --no-deps -r requirements-uv.lock \
 && .tools/bin/uv pip install --quiet --python .venv/bin/python --require-hashes --constraints requirements.lock \
      --requirements pyproject.toml ${EXTRAS:+--extra=${EXTRAS// / --extra=}} \
 && .tools/bin/uv pip install --quiet --python .tools/bin/python --require-hashes --requirements image-tools.lock
COPY api ./api
COPY clients ./clients
COPY dbt ./dbt
COPY docs/snowflake ./docs/snowflake
COPY ml ./ml
COPY outgoing ./outgoing
COPY semantic_models ./semantic_models
COPY workers ./workers
RUN .tools/bin/uv pip install --quiet --python .venv/bin/python --no-deps --editable . \
 && .tools/bin/cyclonedx-py environment .venv --output-reproducible --output-file sbom.cdx.json \
 && .venv/bin/insight --help > /dev/null \
 && rm -rf .tools image-tools.lock

FROM python:${PYTHON}-slim-bookworm
# The code belongs to root and is not writable; what is written goes to /data.
RUN groupadd --system --gid 10001 insight \
 && useradd --system --uid 10001 --gid insight --home-dir /data --no-create-home --shell /usr/sbin/nologin insight \
 && install --directory --owner insight --group insight --mode 0750 /data
COPY --from=build /app /app
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    INSIGHT_HOST=0.0.0.0 \
    INSIGHT_WAREHOUSE_URL=duckdb:////data/warehouse.duckdb \
    INSIGHT_PUBLICATION_DIR=/data/publications \
    INSIGHT_STATE_URL=sqlite:////data/state.db
WORKDIR /data
USER 10001:10001
EXPOSE 8000 31337
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s --retries=3 \
  CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:8000/healthz', timeout=2)"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["insight"]
CMD ["serve"]
