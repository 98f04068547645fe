"""When the files were modified."""

import os
from datetime import datetime, timedelta, timezone

from additions import add_steps
from mutation import M
from outcomes import SAME, further

SECOND, DAY = 10**9, 86_400 * 10**9
BEFORE_1970 = (-SECOND // 2, -1, -999, -1000, -1001, -100 * DAY, -20 * 365 * DAY + 1, -60 * 365 * DAY - 1)
FROM_1970 = (0, 1, 999, 1000, SECOND - 1, 1_700_000_000_123_456_789, 2**31 * SECOND - 1, 2**31 * SECOND)
FAR_FROM_NOW = (2**32 * SECOND, 4_102_444_800 * SECOND + 999, 9_200_000_000 * SECOND + 1999, 10_413_792_000 * SECOND)


def modified(name, *clocks):
    """Steps whose tensor and metadata were modified at these nanoseconds since 1970: the later counts.

    It is rounded down to microseconds.
    """

    def change(dump):
        for files, of_files in zip(add_steps(*[{}] * len(clocks))(dump), clocks):
            for path, nanoseconds in zip(files, of_files):
                os.utime(path, ns=(nanoseconds, nanoseconds))

    since = lambda nanoseconds: datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(microseconds=nanoseconds // 1000)
    return M(name, change, further(*[{"source_modified": since(max(of_files))} for of_files in clocks]))


CLOCKS = [
    modified("modified before 1970", *[(clock, clock - SECOND) for clock in BEFORE_1970]),
    modified("modified from 1970 on", *[(clock, clock - SECOND) for clock in FROM_1970]),
    modified("modified far from now", *[(clock, 0) for clock in FAR_FROM_NOW]),
    modified("modified before their metadata", (SECOND, 2 * SECOND), (-1, 1), (-2001, -1001), (0, 0)),
    M("all modified at once", lambda dump: [os.utime(path, (10**9, 10**9)) for path in dump.root.rglob("*")] and None,
      SAME),
]  # fmt: skip
