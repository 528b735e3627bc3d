"""The demonstration: a real Airflow and the sandbox on this machine, in one folder, started and stopped together."""
