# Hub, signer, edge node and simulators in one image: what they run with is what `make demo` runs with.
FROM debian:12.12-slim
RUN apt-get update -qq \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends ca-certificates make python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY . .
RUN .ci/prepare demo && rm -rf /var/lib/apt/lists/* /root/.cache /root/.npm
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001:10001
