"""The glue: the only modules that know both Airflow and the pipeline.

connections   what each connection is, and what is opened from it
services      the provider's hooks as the pipeline's destination and resolvers
destinations  where events go: one file and one name each
sources       where orders come from beside topic and extracts: one file and one name each
run_context   what Airflow knows of a run as the pipeline's, and the pipeline's errors as Airflow's
alerting      notifying people, and the metrics
tasks         a function per task
cli           the operator's commands
"""
