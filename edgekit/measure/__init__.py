"""Measurement: complexity, benchmark, rows, and the report's renderings."""
