# Both binaries in one small image: celeriac-worker and celeriac.
FROM rust:1-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev make \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /celeriac
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/celeriac/target \
    cargo build --profile dist --locked -p celeriac-worker -p celeriac-producer \
    && install -D -t /out target/dist/celeriac-worker target/dist/celeriac

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home celeriac
COPY --from=build /out/ /usr/local/bin/
USER celeriac
# SIGTERM is a warm shutdown; the worker may be PID 1, in the exec form: a shell would keep signals.
# One without --processes leaves it to an init to wait for orphans of its tasks: start the container
# with `docker run --init` (compose: `init: true`) if tasks start programs that outlive them.
STOPSIGNAL SIGTERM
CMD ["celeriac-worker"]
