"""An evaluation as text, as plain values for JSON, and as an HTML page."""
