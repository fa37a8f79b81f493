"""The formats of files: JSON lines, Parquet and Avro as tables of pandas."""
