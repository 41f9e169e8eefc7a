# One image, several deployments: /bin/bid-service, /bin/bid-worker and /bin/bidctl.
#
#   docker build -t gavel .                                   builds inside the image
#   cargo build --release && docker build -t gavel --target prebuilt .   takes target/release as it is
ARG BUILD_IMAGE=rust:1.95-trixie
ARG RUNTIME_IMAGE=debian:trixie-slim

FROM ${RUNTIME_IMAGE} AS runtime
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin gavel \
 && install -d -o gavel -g gavel /var/lib/gavel
USER 10001
EXPOSE 8080 8081
CMD ["/bin/bid-service"]

FROM runtime AS prebuilt
COPY target/release/bid-service target/release/bid-worker target/release/bidctl /bin/

FROM ${BUILD_IMAGE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends protobuf-compiler libprotobuf-dev
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package gavel --bins

FROM runtime
COPY --from=build /src/target/release/bid-service /src/target/release/bid-worker /src/target/release/bidctl /bin/
