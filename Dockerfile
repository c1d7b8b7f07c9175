# One binary, and what it needs to verify others: nothing else is in the image. It is edge, controller and backend alike;
# the arguments say which.
FROM rust:1.90-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --locked --profile dist --bin tollgate

FROM debian:bookworm-slim
# hadolint ignore=DL3008 # the roots of the day, not those of some day
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --no-create-home --uid 10001 --user-group tollgate \
    && install -d -o tollgate -g tollgate /data
COPY --from=build /src/target/dist/tollgate /usr/local/bin/tollgate
COPY config/edge.fly.toml /etc/tollgate/edge.toml
COPY config/routes.fly.toml /etc/tollgate/routes.toml
COPY config/controller.fly.toml /etc/tollgate/controller.toml
COPY config/alerts.toml /etc/tollgate/alerts.toml
COPY config/backend.fly.toml /etc/tollgate/backend.toml
USER 10001
# edge: https, http, health. controller: 8080. backend: 8090. Ports below 1024 need nobody's rights.
EXPOSE 8443 8080 9100 8090
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/tollgate"]
CMD ["run", "-c", "/etc/tollgate/edge.toml"]
