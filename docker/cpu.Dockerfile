# csa-deploy without a GPU: export, check, quantize, TensorRT-RTX builds, verify, bundles, targets over ssh.
#   docker build -f docker/cpu.Dockerfile -t csa-deploy:cpu .
FROM python:3.11.13-slim-bookworm

# The ssh client reaches targets and signs bundles.
RUN apt-get update \
    && apt-get install -y --no-install-recommends "openssh-client=1:9.2*" \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/csa-deploy
COPY . .
# PyTorch's own index has a build without CUDA, a tenth of the size; the second command leaves it alone.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu -c requirements/constraints.txt torch \
    && pip install --no-cache-dir -c requirements/constraints.txt ".[torch,rtx]"

RUN useradd --create-home --uid 1000 user
USER 1000
WORKDIR /work
ENTRYPOINT ["csa-deploy"]
CMD ["--help"]
