# engraft as a container: one volume (/data), one port (8080), a user without rights.
#
#   docker build -t engraft .
#   docker run -p 8080:8080 -v engraft:/data -e ENGRAFT_API_KEY=engraft_<64 hexadecimal digits> engraft
#
# With NVIDIA's libraries (some 2 GB), for machines whose driver is 580 or newer and whose Docker has NVIDIA's container toolkit:
#
#   docker build --target cuda -t engraft:cuda .
#   docker run --gpus all -p 8080:8080 -v engraft:/data -e ENGRAFT_API_KEY=engraft_<64 hexadecimal digits> engraft:cuda

FROM rust:1.95-slim-trixie AS rust

FROM debian:trixie-slim AS build
RUN apt-get update \
 && apt-get install -y --no-install-recommends build-essential \
 && rm -rf /var/lib/apt/lists/*
COPY --from=rust /usr/local/rustup /usr/local/rustup
COPY --from=rust /usr/local/cargo /usr/local/cargo
ENV RUSTUP_HOME=/usr/local/rustup CARGO_HOME=/usr/local/cargo PATH=/usr/local/cargo/bin:$PATH
WORKDIR /src
COPY Cargo.toml Cargo.lock openapi.yaml ./
COPY src src
COPY migrations migrations
COPY benches benches
# The program holds the schemas.
COPY docs/schemas docs/schemas
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked \
 && cp target/release/engraft /usr/local/bin/engraft

FROM debian:trixie-slim AS plain
RUN apt-get update \
 && apt-get install -y --no-install-recommends curl \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 engraft \
 && useradd --uid 10001 --gid engraft --no-create-home --shell /usr/sbin/nologin engraft \
 && install -d -m 0700 -o engraft -g engraft /data
COPY --from=build /usr/local/bin/engraft /usr/local/bin/engraft
USER engraft
ENV ENGRAFT_LISTEN=0.0.0.0:8080 ENGRAFT_DATA_DIR=/data
VOLUME /data
EXPOSE 8080
STOPSIGNAL SIGTERM
# Beyond loopback the server insists on a key: pass ENGRAFT_API_KEY, or make keys with `engraft keys create`.
# With `--tls-cert` it speaks HTTPS alone, and its certificate is not one for 127.0.0.1.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s CMD curl -fsS http://127.0.0.1:8080/readyz || curl -fsSk https://127.0.0.1:8080/readyz || exit 1
ENTRYPOINT ["engraft"]
CMD ["serve"]

# The compiler, matrix products and convolutions, from NVIDIA's packages; the program is the same.
FROM python:3.13-slim-trixie AS nvidia
RUN pip install --no-cache-dir --no-deps --target /wheels \
    'nvidia-cuda-nvrtc==13.0.*' 'nvidia-cublas==13.*' 'nvidia-cudnn-cu13==9.*'

FROM plain AS cuda
COPY --from=nvidia /wheels/nvidia /opt/nvidia
USER root
RUN install -d -m 0700 -o engraft -g engraft /var/cache/engraft
USER engraft
ENV ENGRAFT_CUDA_LIBRARIES=/opt/nvidia/cu13/lib:/opt/nvidia/cudnn/lib ENGRAFT_KERNEL_CACHE=/var/cache/engraft ENGRAFT_DEVICE=cuda \
    NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

# What is built without a target.
FROM plain
