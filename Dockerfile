# The page on the CPU, not as root:  docker build -t maskstream . && docker run --rm -p 127.0.0.1:7860:7860 maskstream
# Sessions and the cache lie in /data (-v maskstream-data:/data keeps them). Nothing asks for a password: publish the
# port to the loopback, or put a proxy with authentication before it.
# docker/check.sh tests it; without docker it runs the same steps as a script.
FROM python:3.12-slim

WORKDIR /src
COPY . .
RUN sh docker/install.sh /opt/maskstream \
    && useradd --uid 10001 --no-create-home --home-dir /data maskstream \
    && mkdir -p /data && chown maskstream:maskstream /data \
    && cp LICENSE NOTICE ATTRIBUTION.tsv /opt/maskstream/ \
    && rm -rf /src/*

WORKDIR /data
USER 10001
ENV HOME=/data MASKSTREAM_CACHE=/data/cache PATH=/opt/maskstream/bin:$PATH PYTHONUNBUFFERED=1
VOLUME /data
EXPOSE 7860
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:7860/robots.txt', timeout=4)"]
ENTRYPOINT ["maskstream"]
CMD ["ui", "--host", "0.0.0.0", "--port", "7860", "--sessions", "/data/sessions"]
