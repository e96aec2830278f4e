# Of the same Debian as the image below, whose C library it has to do with. The library for Kafka asks for a C++ compiler.
FROM rust:1.95-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc g++ libc6-dev make perl && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY benches benches
COPY examples examples
COPY tests tests
# Shown as callscope_build_info; for example --build-arg CALLSCOPE_REVISION=$(git rev-parse --short HEAD).
ARG CALLSCOPE_REVISION=unknown
RUN cargo build --release --locked --bin callscope

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
RUN useradd --system --create-home --home-dir /var/lib/callscope callscope
COPY --from=build /src/target/release/callscope /usr/local/bin/callscope
# Where the simulated people of the demo are, and nobody else.
COPY --from=build /src/src/simulate/places.mmdb /usr/share/callscope/demo.mmdb
USER callscope
ENV CALLSCOPE__DATA_DIR=/var/lib/callscope/data CALLSCOPE__HTTP__LISTEN=0.0.0.0:7300
VOLUME /var/lib/callscope
EXPOSE 7300
# Whether it lives: to start it anew helps nobody who waits for Elasticsearch or Kafka. There is no curl in here.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s CMD ["callscope", "health"]
ENTRYPOINT ["callscope"]
CMD ["serve"]
