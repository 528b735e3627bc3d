# Airflow with the pipeline and its provider: every component and worker of docker-compose.yaml runs from the first image.
# Builds with and without BuildKit. AIRFLOW_IMAGE may name another image of Airflow 3.3.2 with Python 3.11 or later.
ARG AIRFLOW_IMAGE=apache/airflow:slim-3.3.2-python3.12

FROM ${AIRFLOW_IMAGE} AS airflow
WORKDIR /opt/instore
COPY requirements.txt requirements-celery.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements.txt -r requirements-celery.txt -c constraints.txt
# Its wheel is built beside its sources.
COPY --chown=airflow:0 plugins plugins
RUN pip install --no-cache-dir --no-deps --no-build-isolation ./plugins
COPY dags dags
COPY include include
COPY adapters adapters
# The volumes of docker-compose.yaml, which take their owner from here.
RUN mkdir -p /opt/airflow/shared /opt/airflow/receipts
ENV PYTHONPATH=/opt/instore \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/instore/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/instore/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False

# The stand-ins of the outside world, for trying it out; nothing of them is in the image above.
FROM ${AIRFLOW_IMAGE} AS sandbox
WORKDIR /opt/instore
COPY sandbox/requirements.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements.txt "azure-servicebus==7.15.0" -c constraints.txt
COPY sandbox sandbox
USER root
RUN mkdir /state && chown 50000:0 /state
USER 50000
ENV PYTHONPATH=/opt/instore
ENTRYPOINT ["python", "-m", "sandbox"]
