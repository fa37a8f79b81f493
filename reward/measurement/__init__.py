"""What is measured around each decision: amounts in windows, limits, seasonality and the outcomes they give."""
