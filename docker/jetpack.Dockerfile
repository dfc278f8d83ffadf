# csa-deploy on a Jetson with JetPack 6.1 (L4T 36.4, TensorRT 10.3). It is not needed to build for a Jetson:
# `csa-deploy build --target` does that from a workstation, with nothing installed on the Jetson.
# JetPack's Python bindings of TensorRT are for Python 3.10 and csa-deploy needs 3.11: engines are built and run by trtexec.
#   docker build -f docker/jetpack.Dockerfile -t csa-deploy:jetpack .     (on the Jetson)
#   docker run --runtime nvidia ...
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0

# Versions of Ubuntu 22.04, which this image is; its own sources pin them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends openssh-client python3.11 python3.11-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/csa-deploy
COPY . .
RUN python3.11 -m venv /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir '.[torch]'
ENV PATH=/opt/venv/bin:/usr/src/tensorrt/bin:$PATH

RUN useradd --create-home --uid 1000 --groups video user
USER 1000
WORKDIR /work
ENTRYPOINT ["csa-deploy"]
CMD ["doctor"]
