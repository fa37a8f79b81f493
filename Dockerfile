# crosschannel with its pinned dependencies: docker build -t crosschannel . && docker run -v "$PWD:/work" crosschannel train
FROM python:3.11.14-slim-bookworm AS build
WORKDIR /source
COPY . .
# Pinned: an unpinned torch may bring gigabytes of libraries for GPUs.
RUN python -m venv /opt/crosschannel \
    && /opt/crosschannel/bin/pip install --no-cache-dir --constraint constraints.txt .

FROM python:3.11.14-slim-bookworm
COPY --from=build /opt/crosschannel /opt/crosschannel
RUN useradd --create-home --uid 1000 crosschannel && mkdir /work && chown crosschannel /work
USER crosschannel
WORKDIR /work
ENV PATH=/opt/crosschannel/bin:$PATH
ENTRYPOINT ["crosschannel"]
CMD ["--help"]
