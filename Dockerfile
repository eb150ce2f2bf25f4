FROM astral/uv:0.13.8 AS uv

FROM python:3.14-slim AS build
COPY --from=uv /uv /usr/local/bin/uv
# Copied files, not links into the cache; bytecode now, because the finished image is read-only.
ENV UV_LINK_MODE=copy \
    UV_COMPILE_BYTECODE=1 \
    UV_PYTHON_DOWNLOADS=never \
    UV_CACHE_DIR=/var/cache/uv
WORKDIR /app
# The dependencies are a layer of their own, which changes only with the lock.
COPY pyproject.toml uv.lock ./
RUN --mount=type=cache,target=/var/cache/uv \
    uv sync --locked --no-dev --no-install-project
COPY README.md LICENSE ./
COPY app ./app
RUN --mount=type=cache,target=/var/cache/uv \
    uv sync --locked --no-dev --no-editable

FROM python:3.14-slim
LABEL org.opencontainers.image.title="MyScheduler" \
      org.opencontainers.image.description="A self-hosted scheduler for HTTP webhooks" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.authors="MyScheduler contributors"
# The base image has no bytecode of the standard library. Without it, and on a read-only root,
# every start and every health check would compile it anew.
RUN groupadd --gid 10001 myscheduler \
    && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /app \
        --shell /usr/sbin/nologin myscheduler \
    && install --directory --owner=10001 --group=10001 --mode=0750 /app/data \
    && python -m compileall -q -j 0 -x '/(site-packages|test|tests|lib2to3|idlelib)/' \
        /usr/local/lib/python3.14
WORKDIR /app
COPY --from=build /app/.venv /app/.venv
ENV PATH=/app/.venv/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    DATABASE_URL=sqlite:////app/data/jobs.db \
    HOST=0.0.0.0 \
    PORT=8003
# By number, so that Kubernetes can see that it is not root.
USER 10001:10001
VOLUME ["/app/data"]
EXPOSE 8003
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as r; r.build_opener(r.ProxyHandler({})).open('http://127.0.0.1:' + os.environ.get('PORT', '8003') + '/health/live', timeout=4)"]
ENTRYPOINT ["myscheduler"]
CMD ["serve"]
