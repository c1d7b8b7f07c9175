# One binary, and what it needs to verify others: nothing else is in the image.
FROM rust:1.90-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --profile dist --bin tollgate

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home --uid 10001 tollgate \
    && install -d -o tollgate -g tollgate /data
COPY --from=build /src/target/dist/tollgate /usr/local/bin/tollgate
COPY config/edge.fly.toml /etc/tollgate/edge.toml
COPY config/routes.toml /etc/tollgate/routes.toml
USER tollgate
# https, http, health. Ports below 1024 need nobody's rights.
EXPOSE 8443 8080 9100
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["run", "-c", "/etc/tollgate/edge.toml"]
