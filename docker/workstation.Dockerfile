# csa-deploy with TensorRT for the GPU of this machine. TensorRT comes as NVIDIA's pip packages; the driver comes from the
# host, through the NVIDIA Container Toolkit (docker run --gpus all).
#   docker build -f docker/workstation.Dockerfile --build-arg PACKAGE=tensorrt-cu12 --build-arg VERSION=10.13.3.9 .
#   docker build -f docker/workstation.Dockerfile --build-arg PACKAGE=tensorrt-cu13 --build-arg VERSION=11.1.0.106 .
FROM python:3.11.13-slim-bookworm

ARG PACKAGE=tensorrt-cu12
ARG VERSION=10.13.3.9

RUN apt-get update \
    && apt-get install -y --no-install-recommends "openssh-client=1:9.2*" \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/csa-deploy
COPY . .
RUN pip install --no-cache-dir -c requirements/constraints.txt ".[torch,cuda]" \
    && pip install --no-cache-dir "${PACKAGE}==${VERSION}"

RUN useradd --create-home --uid 1000 user
USER 1000
WORKDIR /work
ENV NVIDIA_DRIVER_CAPABILITIES=compute,utility
ENTRYPOINT ["csa-deploy"]
CMD ["doctor"]
