"""An Apache Airflow provider for in-store orders: Profile Store (write and read), loyalty look-ups, and an operator."""

__all__ = ["__version__"]

__version__ = "0.1.0"
