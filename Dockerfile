# One image for the three services: `docker run IMAGE orders serve`. docs/image.md says how it is built.
ARG BASE_IMAGE=python:3.13.15-slim-trixie@sha256:ffb752e139c0a19692a43af8d8523b274222dd68eebad5d583b45c2201c6e30a

FROM ${BASE_IMAGE} AS packages
ARG PIP_INDEX_URL
ARG PIP_TRUSTED_HOST
WORKDIR /build
COPY requirements-run.lock dev/slim.py ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps --no-compile \
        --only-binary :all: --require-hashes --requirement requirements-run.lock --target /packages \
    && python slim.py /packages \
    && python -m compileall -q -j 0 --invalidation-mode unchecked-hash /packages

FROM packages AS sources
COPY chassis /sources/chassis
COPY customers /sources/customers
COPY orders /sources/orders
COPY orchestrator /sources/orchestrator
# Whatever the mask of who checked them out: everybody reads them, nobody else writes them.
RUN python -m compileall -q --invalidation-mode unchecked-hash /sources \
    && chmod -R a+rX,go-w /sources \
    && mkdir /data

FROM packages AS watch
COPY requirements-watch.lock ./
RUN --mount=type=cache,target=/root/.cache/pip \
    python -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
        --only-binary :all: --require-hashes --requirement requirements-watch.lock --target /watch

FROM ${BASE_IMAGE} AS base
ENV PYTHONPATH=/app:/packages \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DATA_DIR=/data
WORKDIR /app
# For the embedded database, where someone only tries it out: a volume takes over owner and mode.
COPY --from=sources --chown=10001:10001 /data /data
COPY --from=packages /packages /packages
USER 10001:10001
ENTRYPOINT ["python", "-m"]
CMD ["orchestrator", "serve"]

# For the loop of development: sources that can be written, services that start again when they are.
FROM base AS dev
ENV PYTHONPATH=/app:/packages:/watch
COPY --from=watch /watch /watch
COPY dev/reload.sh /watch/
COPY --chown=10001:10001 chassis chassis
COPY --chown=10001:10001 customers customers
COPY --chown=10001:10001 orders orders
COPY --chown=10001:10001 orchestrator orchestrator
ENTRYPOINT ["sh", "/watch/reload.sh"]

FROM base AS run
ARG BASE_IMAGE
ARG VERSION=0.1.0
ARG REVISION
ARG CREATED
COPY --from=sources /sources ./
LABEL org.opencontainers.image.title="b2b-orders" \
      org.opencontainers.image.description="A B2B order orchestrator: validate the customer, create the order, confirm it, exactly once." \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${BASE_IMAGE}"
