"""Log-probs of the reference model, for the methods that compare the policy with where it started.

They are computed once before the training and kept in a file whose name and contents say of which model and which data
they are, so that a resumed training, and the next one, read them. Several processes share the work, whether each holds
the whole model or a part of it.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate.utils import gather_object
from datasets import Dataset
from torch import nn
from torch.distributed.tensor import DTensor
from tqdm.auto import tqdm

from clha_core.errors import UserError
from clha_core.models.zero3 import gathered, gathered_in_calls
from clha_core.packing.budget import cut
from clha_core.packing.scorer import ResponseScorer
from clha_core.packing.support import lowest_precision
from clha_core.training.batches import Row, micro_batch
from clha_core.training.config import CLHAConfig

METADATA = b"clha.reference"


def with_reference_logps(rows: Dataset, model: nn.Module, scorer: ResponseScorer, args: CLHAConfig) -> Dataset:
    """Fill the column `reference` with log-probs under `model` as it is now; all processes have to call this.

    Raises:
        UserError: the cached file is of another model or other data than its name says, or is damaged.
    """
    identity = {
        "model": weights_digest(model),
        "data": data_digest(rows),
        "precision": str(lowest_precision(model)),
    }
    if args.reference_cache is None:
        return rows.remove_columns("reference").add_column("reference", _compute(rows, model, scorer, args))
    name = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    file = Path(args.reference_cache) / f"reference-{name}.parquet"
    if all(gather_object([file.exists()])):
        logps = _read(file, rows, identity)
    else:
        logps = _compute(rows, model, scorer, args)
        if args.process_index == 0:
            _write(file, rows, logps, identity)
    return rows.remove_columns("reference").add_column("reference", logps)


def weights_digest(model: nn.Module) -> str:
    """sha256 over names and values of all weights; one at a time is gathered where processes hold parts of them."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict(keep_vars=True).items()):
        digest.update(name.encode())
        with gathered(tensor):
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            digest.update(whole.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def data_digest(rows: Dataset) -> str:
    """sha256 over ids and tokens of all rows."""
    digest = hashlib.sha256()
    for row in rows:
        digest.update(json.dumps([row["id"], row["prompts"], row["responses"], row["prompt_of"]]).encode())
    return digest.hexdigest()


@torch.no_grad()
def _compute(rows: Dataset, model: nn.Module, scorer: ResponseScorer, args: CLHAConfig) -> list[list[float]]:
    made = [Row(**row) for row in rows]
    candidates = max(len(row.responses) for row in made)
    logps: dict[int, list[float]] = {}
    was_training = model.training
    model.eval()
    packs = cut([scorer.cost(row.trees) for row in made], args.tokens_per_micro_batch)
    own = packs[args.process_index :: args.world_size]
    # As many forward passes in every process: those that hold parts of a model have to meet in each.
    own += packs[:1] * (math.ceil(len(packs) / args.world_size) - len(own))
    for indices in tqdm(own, desc="reference log-probs", disable=args.disable_tqdm or args.process_index > 0):
        batch = micro_batch([made[index] for index in indices], candidates, args.device)
        with gathered_in_calls(model):
            dense = batch.dense(scorer.sums(model, batch.trees, batch.pack)).tolist()
        for index, values in zip(indices, dense, strict=True):
            logps[index] = values[: len(made[index].responses)]
    model.train(was_training)
    logps = dict(gather_object(list(logps.items())))
    return [logps[index] for index in range(len(made))]


def _write(file: Path, rows: Dataset, logps: list[list[float]], identity: dict[str, Any]) -> None:
    table = pa.table({"id": rows["id"][:], "logps": logps})
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    pq.write_table(table.replace_schema_metadata({METADATA: json.dumps(identity).encode()}), partial)
    partial.rename(file)


def _read(file: Path, rows: Dataset, identity: dict[str, Any]) -> list[list[float]]:
    try:
        table = pq.read_table(file)
    except (OSError, pa.ArrowInvalid) as error:
        raise UserError(f"the reference log-probs in {file} cannot be read ({error}): remove the file.") from None
    if json.loads((table.schema.metadata or {}).get(METADATA, b"{}")) != identity or table["id"].to_pylist() != list(
        rows["id"]
    ):
        raise UserError(f"the reference log-probs in {file} are of another model or other data: remove the file.")
    return table["logps"].to_pylist()
