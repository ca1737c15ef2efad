# syntax=docker/dockerfile:1

# One Python for both stages: a virtual environment works only with the one that made it.
ARG PYTHON=3.13

# The base that has a compiler: the modules that nearly every request passes are compiled.
FROM python:${PYTHON}-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /source
COPY pyproject.toml README.md LICENSE ./
COPY tools/compiled.py tools/compiled.py
COPY sidecar sidecar
# Only ready-made wheels for the dependencies: nothing but our own modules is compiled.
RUN HATCH_BUILD_HOOK_ENABLE_CUSTOM=1 python -m pip wheel --no-deps --wheel-dir /wheels . \
 && python -m venv --without-pip /opt/sidecar \
 && python -m pip --python /opt/sidecar/bin/python install --only-binary :all: /wheels/*.whl

FROM python:${PYTHON}-slim-bookworm
ARG VERSION=0.1.0
LABEL org.opencontainers.image.title="auth-sidecar" \
      org.opencontainers.image.description="Signs people in, gives them an account in the application, and forwards their requests." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}"
# A number as the user, so that Kubernetes can prove that it is not root; a name besides, since libraries ask for one.
RUN python -m pip uninstall --yes --quiet --root-user-action ignore pip \
 && groupadd --gid 10001 sidecar \
 && useradd --uid 10001 --gid 10001 --no-log-init --no-create-home --home-dir /var/lib/sidecar --shell /usr/sbin/nologin sidecar \
 && install -d -o 10001 -g 10001 -m 0750 /var/lib/sidecar
COPY --from=build /opt/sidecar /opt/sidecar
ENV PATH=/opt/sidecar/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SIDECAR_HEALTH=http://127.0.0.1:8080/-/live
USER 10001:10001
# Everything else may be read-only. A directory in SQLite lands here when its address is relative.
WORKDIR /var/lib/sidecar
VOLUME ["/var/lib/sidecar"]
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen(os.environ['SIDECAR_HEALTH'], timeout=4)"]
ENTRYPOINT ["sidecar"]
CMD ["run", "/etc/sidecar/config.yaml"]
