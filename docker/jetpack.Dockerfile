# csa-deploy on a Jetson with JetPack 6.1 (L4T 36.4, TensorRT 10.3, Python 3.10). It is not needed to build for a Jetson:
# `csa-deploy build --target` does that from a workstation, with nothing installed on the Jetson.
#   docker build -f docker/jetpack.Dockerfile -t csa-deploy:jetpack .     (on the Jetson)
#   docker run --runtime nvidia ...
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0

# Versions of Ubuntu 22.04, which this image is; its own sources pin them.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends openssh-client python3-pip python3-venv python3-libnvinfer \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/csa-deploy
COPY . .
# The environment sees python3-libnvinfer, the TensorRT of JetPack.
RUN python3 -m venv --system-site-packages /opt/venv \
    && /opt/venv/bin/pip install --no-cache-dir .
ENV PATH=/opt/venv/bin:/usr/src/tensorrt/bin:$PATH

RUN useradd --create-home --uid 1000 --groups video user
USER 1000
WORKDIR /work
ENTRYPOINT ["csa-deploy"]
CMD ["doctor"]
