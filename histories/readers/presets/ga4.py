"""Google Analytics 4: the tables `events_YYYYMMDD` that it exports to BigQuery."""

from crosschannel.histories.readers.presets.preset import Preset

GA4 = Preset(
    layout="the BigQuery export's tables, as JSON lines or Parquet",
    columns={
        "user_id": "user_id",
        "anonymous_id": "user_pseudo_id",
        "time": "event_timestamp",
        "event": "event_name",
    },
    time_unit="us",
)
