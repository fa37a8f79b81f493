"""Average effects of the logged messages: estimates, influence functions, event study, diagnostics and the report."""
