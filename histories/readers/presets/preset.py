"""What a ready-made mapping of a vendor's export says: the columns of the stream, and how its times are written."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from crosschannel.histories.readers.json_paths import column_of
from crosschannel.histories.readers.sources import TableSource

#: Native columns that an export may lack: it then has no copies to find, or no anonymous ids.
OPTIONAL = ("message_id", "anonymous_id")


@dataclass(frozen=True)
class Preset:
    """The columns of a vendor's export.

    Attributes:
        layout: The export that is meant, for the documentation.
        columns: The column, or the path into nested values, of each native column.
        fallbacks: The column of a native one in rows where that of `columns` has no value.
        time_unit: Unit of times that are numbers since 1970 UTC.
    """

    layout: str
    columns: Mapping[str, str]
    fallbacks: Mapping[str, str] = field(default_factory=dict)
    time_unit: str | None = None

    def fill(self, source: TableSource) -> TableSource:
        """Return a table's settings with those of the preset where the user wrote none.

        A column that the user maps or gives a constant is the user's, and so is one of the file that the user maps to
        another native column. The unit of times is the preset's only with the preset's column of times.
        """
        given = {*source.columns, *source.constants}
        used = set(source.columns.values())
        added = {name: path for name, path in self.columns.items() if name not in given and path not in used}
        own_times = "time" in given or source.time_format is not None or source.time_unit is not None
        return replace(
            source,
            columns={**source.columns, **added},
            time_unit=source.time_unit if own_times else self.time_unit,
        )

    def names_in(self, columns: Iterable[str], source: TableSource, names: Mapping[str, str]) -> dict[str, str]:
        """Return the names of native columns that a file with these columns has or must have.

        A file lacks a key that none of its rows has, as exporters leave out what is empty: then the fallback counts,
        and an optional column is left out.

        Args:
            columns: The file's columns.
            source: The table's settings as the user wrote them.
            names: The column of each native one, with those of the preset.
        """
        known = set(columns)
        out = dict(names)
        for native in names:
            if native in source.columns or column_of(known, names[native]) is not None:
                continue
            other = self.fallbacks.get(native)
            if other is not None and column_of(known, other) is not None:
                out[native] = other
            elif native in OPTIONAL:
                del out[native]
        return out

    def has_no_users(self, columns: Iterable[str], source: TableSource, names: Mapping[str, str]) -> bool:
        """Return whether a file with these columns has anonymous ids and no column of users: nobody signed in."""
        absent = column_of(set(columns), names["user_id"]) is None if "user_id" in names else False
        return absent and "user_id" not in source.columns and "anonymous_id" in names

    def fallbacks_in(self, columns: Iterable[str], source: TableSource, names: Mapping[str, str]) -> dict[str, str]:
        """Return the fallbacks of native columns that apply in a file with these columns."""
        known = set(columns)
        return {
            native: path
            for native, path in self.fallbacks.items()
            if native not in source.columns and names.get(native, path) != path and column_of(known, path) is not None
        }
