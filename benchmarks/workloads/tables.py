"""Parquet files, rewritten by what a table library does: rows appended to some, a column changed in others."""

from pathlib import Path

import numpy as np

from benchmarks.workloads.base import Workload

FILES = 16
ROWS = 500_000


class Parquet(Workload):
    name = "parquet"
    about = (
        "16 Parquet files of 500,000 rows and seven columns; in four 5 % more rows, in four 1 % of one column changed, "
        "each file written anew"
    )
    room = 8 << 30
    content_defined = False

    def table(self, file: int, rows: int, first: int = 0):
        import pyarrow as pa

        rng = self.rng(0, file, first)
        return pa.table(
            {
                "id": np.arange(first, first + rows),
                "time": 1_700_000_000_000 + np.cumsum(rng.integers(0, 2000, rows)),
                "x": rng.normal(size=rows),
                "y": rng.normal(size=rows).astype(np.float32),
                "kind": np.array(["cat", "dog", "bird", "fish"])[rng.integers(0, 4, rows)],
                "score": rng.integers(0, 1000, rows),
                "hash": [one.tobytes() for one in np.frombuffer(rng.bytes(16 * rows), "V16")],
            }
        )

    def write(self, table, path: Path) -> None:
        import pyarrow.parquet as pq

        path.unlink(missing_ok=True)
        options = {"use_content_defined_chunking": True} if self.content_defined else {}
        pq.write_table(table, path, compression="snappy", **options)

    def build(self, folder: Path) -> None:
        for file in range(FILES):
            self.write(self.table(file, self.count(ROWS)), folder / f"{file:02d}.parquet")

    def edit(self, folder: Path, step: int = 1) -> None:
        import pyarrow as pa

        rows = self.count(ROWS)
        for file in range(4):
            whole = pa.concat_tables([self.table(file, rows), self.table(file, rows // 20, rows * step)])
            self.write(whole, folder / f"{file:02d}.parquet")
        for file in range(4, 8):
            table = self.table(file, rows)
            scores = table.column("score").to_numpy().copy()
            chosen = self.rng(step, file).permutation(rows)[: rows // 100]
            scores[chosen] += 1
            place = table.schema.get_field_index("score")
            self.write(table.set_column(place, "score", pa.array(scores)), folder / f"{file:02d}.parquet")


class ParquetPages(Parquet):
    name = "parquet-pages"
    about = "the same with pages cut by content"
    content_defined = True
