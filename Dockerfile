# One image, several deployments: /bin/bid-service, /bin/bid-worker and /bin/bidctl.
#
#   docker build -t gavel .                                          builds inside the image
#   cargo xtask dist && docker build -t gavel --target prebuilt .    takes target/dist as it is
# --build-arg REVISION=$(git rev-parse --short=10 HEAD) is what /metrics says it was built of.
# By their digests nothing changes beneath you; nor does a fix come of itself: --build-arg RUNTIME_IMAGE=debian:trixie-slim
ARG BUILD_IMAGE=rust:1.95-trixie@sha256:f49565f188ee00bc2a18dd418183f2c5f23ef7d6e691890517ed341a598f67c3
ARG RUNTIME_IMAGE=debian:trixie-slim@sha256:a29215f6a35e51e22adffa17f89e9d2ef06214e64a2bad10d765c46aea49f11f

FROM ${RUNTIME_IMAGE} AS runtime
ARG REVISION=unknown
LABEL org.opencontainers.image.title="Gavel" \
      org.opencontainers.image.description="Real-time auctions: bid-service, bid-worker and bidctl" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${REVISION}"
# Whoever vouches for servers behind TLS. Volumes that are mounted there for the first time are gavel's as well. One
# program does what the name says that it is called by.
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && groupadd --system --gid 10001 gavel \
 && useradd --system --uid 10001 --gid 10001 --no-create-home --shell /usr/sbin/nologin gavel \
 && for each in postgres rabbitmq redis administrator migrator service worker operator reader; do install -d -o gavel -g gavel "/accounts/$each"; done \
 && install -d -o gavel -g gavel /keys/signing /keys/public \
 && for name in bid-service bid-worker bidctl; do ln -s gavel "/bin/$name"; done
USER 10001:10001
EXPOSE 8080 8081
# /healthz of the operators' listener; without a shell and without curl.
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s CMD ["/bin/bidctl", "healthcheck"]
CMD ["/bin/bid-service"]

FROM runtime AS prebuilt
COPY target/dist/gavel /bin/

FROM ${BUILD_IMAGE} AS tools
RUN apt-get update && apt-get install -y --no-install-recommends protobuf-compiler libprotobuf-dev
# Writes into each program which crates it is made of: `cargo audit bin`, Trivy and Syft read it from there.
RUN cargo install cargo-auditable --version 0.7.2 --locked
WORKDIR /src

FROM tools AS manifests
COPY . .
RUN ops/manifests.sh

# First what others wrote, in a layer that stays as long as the manifests do. Sources are as old as their checkout, and
# cargo would take what it built without them for newer; what others' build scripts have written is not touched.
FROM tools AS build
COPY --from=manifests /src .
RUN cargo auditable build --release --locked --package gavel --lib
COPY . .
ARG REVISION=unknown
RUN find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
 && export GAVEL_REVISION="$REVISION" \
 && cargo auditable build --release --locked --package gavel --bins \
 && ops/dist.sh target/release /dist

FROM runtime
COPY --from=build /dist/gavel /bin/
