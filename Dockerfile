# The server in a container: docker build -t patchword . (docs/serve.md, "In a container").
ARG PYTHON=3.11
FROM python:${PYTHON}-slim AS build
# Where torch comes from: an index of CPU or of CUDA builds; pip's own index without it.
ARG TORCH_INDEX=""
WORKDIR /build
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src ./src
RUN python -m venv /opt/patchword \
    && if [ -n "${TORCH_INDEX}" ]; then \
         /opt/patchword/bin/pip install --no-cache-dir -c constraints.txt --index-url "${TORCH_INDEX}" torch; \
       fi \
    && /opt/patchword/bin/pip install --no-cache-dir -c constraints.txt ".[serve]"

FROM python:${PYTHON}-slim
COPY --from=build /opt/patchword /opt/patchword
# Weights and caches live in a volume, so that the rest can be read-only.
ENV PATH=/opt/patchword/bin:${PATH} HF_HOME=/data/hub PATCHWORD_CACHE=/data/cache PYTHONDONTWRITEBYTECODE=1
RUN useradd --create-home --uid 10001 patchword && mkdir /data && chown patchword /data
USER 10001
WORKDIR /data
VOLUME /data
EXPOSE 8000
HEALTHCHECK --start-period=60s CMD ["python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:8000/healthz')"]
ENTRYPOINT ["patchword", "serve", "--host", "0.0.0.0"]
