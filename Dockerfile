# Airflow with the pipeline and its provider; docker-compose.yaml runs every component from this image.
FROM python:3.12-slim-bookworm

RUN useradd --create-home --uid 50000 airflow
WORKDIR /opt/instore
COPY requirements.txt constraints.txt ./
RUN pip install --no-cache-dir -r requirements.txt -c constraints.txt
COPY plugins plugins
RUN pip install --no-cache-dir --no-deps --no-build-isolation ./plugins
COPY dags dags
COPY include include
COPY adapters adapters

ENV AIRFLOW_HOME=/opt/airflow \
    PYTHONPATH=/opt/instore \
    AIRFLOW__CORE__DAGS_FOLDER=/opt/instore/dags \
    AIRFLOW__CORE__PLUGINS_FOLDER=/opt/instore/plugins \
    AIRFLOW__CORE__LOAD_EXAMPLES=False
RUN mkdir -p /opt/airflow && chown airflow /opt/airflow
USER airflow
ENTRYPOINT ["airflow"]
