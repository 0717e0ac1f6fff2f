# CPU:   docker build -t offbeat .
# CUDA:  docker build -t offbeat --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126 .
# Run:   docker run --rm -it -v "$PWD/results:/work/results" offbeat train impala-atari
# Streams live in memfd, so the container needs no larger /dev/shm. With CUDA add --gpus all.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim-bookworm

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=atari,minatar,video

# One layer for torch, which rarely changes, and one for the library.
RUN pip install --no-cache-dir --index-url "${TORCH_INDEX}" "torch>=2.6,<2.14"

WORKDIR /opt/offbeat
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY offbeat offbeat
RUN pip install --no-cache-dir --constraint constraints.txt ".[${EXTRAS}]"

RUN useradd --create-home offbeat && install -d -o offbeat /work
USER offbeat
WORKDIR /work
ENTRYPOINT ["offbeat"]
CMD ["--help"]
