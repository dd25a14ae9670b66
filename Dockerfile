# A node of a Ray cluster (head, worker or job submitter), CPU only. The Python and Ray versions must be the same on
# every node and on the machine that submits: both come from this file and constraints.txt.
#   docker build -t registry.example.com/tinytrain:0.1.0 .
FROM python:3.11-slim-bookworm

# KubeRay's probes call wget; Ray's own start-up looks at processes
RUN apt-get update \
    && apt-get install -y --no-install-recommends procps wget \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/tinytrain
COPY constraints.txt pyproject.toml README.md LICENSE ./
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu --extra-index-url https://pypi.org/simple \
    -c constraints.txt torch
COPY conf ./conf
COPY device_profiles ./device_profiles
COPY jobs ./jobs
COPY tinytrain_dist ./tinytrain_dist
RUN pip install --no-cache-dir -c constraints.txt .

# nothing here needs the superuser; the group owns what OpenShift's random users have to write
RUN useradd --create-home --uid 1000 --gid 0 tinytrain && mkdir /results && chown 1000:0 /results && chmod 770 /results
USER 1000
ENV HOME=/home/tinytrain \
    OMP_NUM_THREADS=1 \
    RAY_USAGE_STATS_ENABLED=0 \
    RAY_ENABLE_UV_RUN_RUNTIME_ENV=0 \
    RAY_AUTH_MODE=token \
    NUMBA_CACHE_DIR=/tmp/numba \
    WANDB_MODE=offline
CMD ["tinytrain", "doctor", "--root", "/results"]
