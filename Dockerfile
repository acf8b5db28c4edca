# The service as a container: docs/container.md. Without CUDA, unless built with
#   --build-arg REQUIREMENTS=requirements.txt
# The base by its digest, so that a later build is the same (docs/container.md says where it is from). For a newer one:
#   docker buildx imagetools inspect python:3.13-slim-bookworm
#   docker build --build-arg BASE=python:3.13-slim-bookworm@sha256:… .
ARG BASE=python:3.13.14-slim-bookworm@sha256:67a1e1f215ccda113cfc024e8639049257e88f273898f595b61476d128d387e8

FROM ${BASE} AS packages
ARG REQUIREMENTS=requirements-cpu.txt
ENV VENV=/opt/faces REQUIREMENTS=${REQUIREMENTS} PIP_NO_CACHE_DIR=1
SHELL ["/bin/bash", "-c"]
WORKDIR /srv/faces
COPY script/env script/env
COPY requirements*.txt ./
# As script/server would install them.
RUN source script/env

FROM ${BASE}
ARG REQUIREMENTS=requirements-cpu.txt
# 10001: no user of the machine, and the owner of the volume.
RUN useradd --uid 10001 --user-group --no-create-home --home-dir /tmp --shell /usr/sbin/nologin faces \
    && install --directory --owner=faces --group=faces --mode=0700 /data
COPY --from=packages /opt/faces /opt/faces
WORKDIR /srv/faces
COPY . .
RUN python3 -m compileall -q enrollment faceproject recognition manage.py
ENV VENV=/opt/faces REQUIREMENTS=${REQUIREMENTS} \
    DATA_DIR=/data ENV_FILE=/dev/null HOST=0.0.0.0 PORT=8000 \
    HOME=/tmp PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1
USER 10001
VOLUME /data
EXPOSE 8000
HEALTHCHECK --interval=15s --timeout=10s --start-period=120s --retries=4 \
    CMD ["/opt/faces/bin/python", "-c", "import os, urllib.request as r; r.urlopen(f\"http://127.0.0.1:{os.environ['PORT']}/readyz\", timeout=8)"]
CMD ["script/server"]
