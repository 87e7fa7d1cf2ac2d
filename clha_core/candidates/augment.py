"""From ingested rows to rows with more candidates: every generator in turn, and the record of what came of it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TextIO

import pyarrow as pa
import pyarrow.compute as pc

from clha_core.candidates.files import FileReport, RowIndex, candidate_files, file_name, read_file
from clha_core.candidates.pool import DATA, Draft, Pool
from clha_core.data.tables import CANDIDATES_SCHEMA
from clha_core.digest import file_digest
from clha_core.params import Params

if TYPE_CHECKING:
    from clha_core.candidates.endpoint import EndpointGenerator
    from clha_core.candidates.policy import PolicySampler


class Generator(Protocol):
    """What makes responses for rows; `origin` is the name of where they come from."""

    origin: str

    def generate(self, rows: Sequence[Mapping[str, Any]], room: Sequence[int]) -> Iterator[Draft]:
        """Responses for rows, of which each has room for so many."""

    def describe(self) -> dict[str, Any]:
        """What made the responses, once they are made."""


def with_origins(table: pa.Table) -> pa.Table:
    """Ingested rows in CANDIDATES_SCHEMA: every response comes from the data."""
    responses = table["responses"].combine_chunks()
    origins = pa.ListArray.from_arrays(responses.offsets, pa.array([DATA] * len(responses.values), pa.string()))
    return table.append_column("origins", origins).cast(CANDIDATES_SCHEMA)


@dataclass
class Augmented:
    """What augment() made.

    Attributes:
        table: the rows, of CANDIDATES_SCHEMA.
        origins: what each name in the column `origins` stands for.
        outcomes: by origin, what became of its responses.
        files: what became of the lines of files.
        usage: of endpoints, by model.
    """

    table: pa.Table
    origins: dict[str, dict[str, Any]]
    outcomes: dict[str, dict[str, Any]] = field(default_factory=dict)
    files: FileReport = field(default_factory=FileReport)
    usage: dict[str, dict[str, Any]] = field(default_factory=dict)

    def to_metrics(self) -> dict[str, Any]:
        """Plain numbers for a metrics file."""
        per_row = pc.value_counts(pc.list_value_length(self.table["responses"])).to_pylist()
        return {
            "rows": self.table.num_rows,
            "candidates": sum(one["values"] * one["counts"] for one in per_row),
            "rows_by_candidates": {str(one["values"]): one["counts"] for one in per_row},
            "by_origin": self.outcomes,
            "files": self.files.to_metrics(),
            "endpoint": self.usage,
        }


def augment(table: pa.Table, params: Params, root: Path, kept: Path, quarantine: TextIO) -> Augmented:
    """Add candidates to ingested rows: from files, then policies, then the endpoint, while rows have room.

    Args:
        table: ingested rows.
        params: all parameters.
        root: of the project.
        kept: folder in which generated responses outlive the process.
        quarantine: takes lines of files that cannot be used.

    Raises:
        UserError: a generator cannot be used. All are looked at before the first one starts.
    """
    wanted = params.candidates
    table = with_origins(table)
    origins: dict[str, dict[str, Any]] = {DATA: {"kind": "data"}}
    files = candidate_files(root / wanted.files)
    if not (files or wanted.policy.models or wanted.endpoint.models):
        return Augmented(table, origins)

    policies = [_policy(model, params, root, kept) for model in dict.fromkeys(wanted.policy.models)]
    endpoints = [_endpoint(model, params, kept) for model in dict.fromkeys(wanted.endpoint.models)]
    pool = Pool(table.to_pylist(), wanted.max_candidates)
    report = FileReport()
    index = RowIndex(pool.rows)
    for file in files:
        origin = f"file:{file_name(file)}"
        pool.take(read_file(file, index, report, quarantine), origin)
        origins[origin] = {"kind": "file", "file": file.name, "sha256": file_digest(file)}
    generators: list[Generator] = [*policies, *endpoints]
    for generator in generators:
        room = [pool.room(row) for row in range(len(pool.rows))]
        pool.take(generator.generate(pool.rows, room), generator.origin)
        origins[generator.origin] = generator.describe()
    return Augmented(
        table=pa.Table.from_pylist(pool.rows, schema=CANDIDATES_SCHEMA),
        origins=origins,
        outcomes=pool.to_metrics(),
        files=report,
        usage={endpoint.model: endpoint.usage() for endpoint in endpoints},
    )


# Imported where they are used: one brings torch, the other the openai package, and most runs need neither.
def _policy(model: str, params: Params, root: Path, kept: Path) -> "PolicySampler":
    from clha_core.candidates.policy import PolicySampler

    return PolicySampler(model, params.candidates.policy, params.policy, root, kept)


def _endpoint(model: str, params: Params, kept: Path) -> "EndpointGenerator":
    from clha_core.candidates.endpoint import EndpointGenerator

    return EndpointGenerator(model, params.candidates.endpoint, kept)
