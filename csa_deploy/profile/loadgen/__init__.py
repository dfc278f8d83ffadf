"""MLPerf's load generator as the driver of a measurement, beside this project's own contract."""
