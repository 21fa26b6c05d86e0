# A small image that transcribes, evaluates and scores on a CPU, without PyTorch:
#   docker build -t asr .
#   docker run --rm -v "$PWD:/data" asr transcribe speech.wav
# With --build-arg 'EXTRAS=[serve]' it also runs `asr serve`; with --build-arg BASE=... it stands on another image with
# Python and pip.
ARG BASE=python:3.12-slim

FROM $BASE AS build
COPY pyproject.toml setup.py README.md LICENSE /src/
COPY asr /src/asr
ARG EXTRAS=""
# What Python never loads is left out: tests, and onnxruntime's C library, which its Python module holds a second time.
RUN python -m venv --without-pip /opt/asr \
    && pip --python /opt/asr/bin/python install --no-cache-dir "/src$EXTRAS" \
    && find /opt/asr -type d -name tests -prune -exec rm -r {} + \
    && rm -f /opt/asr/lib/python*/site-packages/onnxruntime/capi/libonnxruntime.so.*

FROM $BASE
COPY --from=build /opt/asr /opt/asr
RUN useradd --create-home asr
ENV PATH="/opt/asr/bin:$PATH"
USER asr
WORKDIR /data
ENTRYPOINT ["asr"]
CMD ["--help"]
