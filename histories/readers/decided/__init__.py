"""Read back the decisions that `decide` wrote by date, and join them to the log that followed."""
