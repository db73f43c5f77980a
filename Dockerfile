# One's own host, with a GPU or without:
#   docker build -t asuka .
#   docker run --gpus all -p 7860:7860 -v asuka:/data asuka          (leave --gpus out on a CPU)
# torch's wheels bring their own CUDA; the host needs NVIDIA's driver and container toolkit and nothing else.
FROM python:3.12-slim

ENV PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    OMP_WAIT_POLICY=PASSIVE \
    GRADIO_ANALYTICS_ENABLED=False

WORKDIR /app

# Before the code, so that a change of the code installs nothing anew.
COPY requirements.txt requirements-study.txt requirements.lock ./
RUN pip install -r requirements.txt -c requirements.lock

COPY . .

# Everything that is written lies below /data: database, pictures, weights, uploads (swept after a day).
RUN useradd --create-home --uid 10001 asuka && mkdir /data && chown asuka /data
USER asuka
ENV DATABASE_URL=sqlite:////data/asuka.db \
    ASUKA_DATA_DIR=/data/pictures \
    ASUKA_WEIGHTS=/data/weights \
    HF_HOME=/data/hub \
    GRADIO_TEMP_DIR=/data/uploads
VOLUME /data

EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=120s --retries=3 \
    CMD ["python", "-c", "import urllib.request; urllib.request.urlopen('http://127.0.0.1:7860/', timeout=4)"]

CMD ["python", "app.py", "--host", "0.0.0.0", "--port", "7860"]
