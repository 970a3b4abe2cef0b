# ssrob with the exact package versions of envs/lock.txt. From the repository's root:
#   docker build --tag ssrob .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" ssrob study config/quickstart.yaml
FROM python:3.12-slim-bookworm

# Any user may run it (--user); what programs keep in a home folder then goes to /tmp.
ENV HOME=/tmp OMP_NUM_THREADS=1 MLFLOW_DISABLE_TELEMETRY=true PIP_NO_CACHE_DIR=1 PYTHONUNBUFFERED=1

WORKDIR /opt/ssrob
COPY envs/lock.txt envs/lock.txt
RUN pip install --requirement envs/lock.txt

COPY pyproject.toml README.md LICENSE Snakefile ./
COPY envs envs
COPY config config
COPY workflow workflow
COPY ssrob ssrob
RUN pip install --no-deps . && useradd --uid 1000 --no-create-home ssrob

USER ssrob
WORKDIR /work
ENTRYPOINT ["ssrob"]
CMD ["--help"]
