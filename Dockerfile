# The server in a container. With PostgreSQL and Redis around it: compose.yaml, docs/deploy.md.
# tests/integration/test_container.py runs these steps, and the server, without a container.

FROM node:20-bookworm-slim AS novnc
WORKDIR /app
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev --ignore-scripts

FROM python:3.11-slim-bookworm AS build
WORKDIR /app
COPY requirements.txt constraints.txt ./
# Wheels only: a package that would need a compiler is named, instead of failing half-way.
RUN python -m venv --without-pip .venv \
    && pip --python .venv/bin/python install --no-cache-dir --only-binary :all: -r requirements.txt
COPY --from=novnc /app/node_modules node_modules
COPY manage.py ./
COPY controlplane controlplane
COPY desktopctl desktopctl
COPY static static
COPY templates templates
# Outside var/, which may be a volume. var/ is made by settings.py for SQLite.
ENV STATIC_ROOT=/app/staticfiles
RUN .venv/bin/python manage.py collectstatic --noinput \
    && .venv/bin/python -m compileall -q controlplane desktopctl \
    && rm -rf var

FROM python:3.11-slim-bookworm
RUN groupadd --gid 10001 desktopctl \
    && useradd --uid 10001 --gid desktopctl --no-create-home --home-dir /nonexistent \
        --shell /usr/sbin/nologin desktopctl
WORKDIR /app
COPY --from=build /app /app
# The one place for data, and only for SQLite: mount a volume there.
RUN install --directory --owner=desktopctl --group=desktopctl --mode=0700 var
ENV STATIC_ROOT=/app/staticfiles PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
# By number: a cluster that insists on "not root" can see that it is not.
USER 10001:10001
EXPOSE 8000
# Alive, not ready: a restart mends neither a database nor a broker. See docs/deploy.md for /readyz.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30s --retries=3 \
    CMD ["/app/.venv/bin/python", "-c", "import http.client, sys; c = http.client.HTTPConnection('127.0.0.1', 8000, timeout=3); c.request('GET', '/healthz'); sys.exit(c.getresponse().status != 200)"]
ENTRYPOINT ["/app/.venv/bin/python", "manage.py"]
CMD ["serve", "--host", "0.0.0.0", "--port", "8000"]
