# A small image that transcribes, evaluates and scores on a CPU, without PyTorch:
#   docker build -t asr .
#   docker run --rm -v "$PWD:/data" asr transcribe speech.wav
# With --build-arg 'EXTRAS=[serve]' it also runs `asr serve`.
FROM python:3.12-slim
COPY pyproject.toml setup.py README.md LICENSE /src/
COPY asr /src/asr
ARG EXTRAS=""
RUN pip install --no-cache-dir "/src$EXTRAS" && rm -rf /src && useradd --create-home asr
USER asr
WORKDIR /data
ENTRYPOINT ["asr"]
CMD ["--help"]
