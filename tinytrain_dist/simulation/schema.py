"""The result row: name, type, unit, meaning and meaning of null of every column, as an Arrow schema.

This is the only definition; ``docs/results.md`` is held to it by a test.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 2
SINCE = {"extrapolated": 2}
"""Columns added after the first version, by the version that added them: null for readers of older rows."""
RESULT_VERSION = 4
"""Raised whenever the code changes a number in a row: part of a run's identity."""

KEY_COLUMNS = ("task_id", "checkpoint", "method", "variant", "device")
HOST_COLUMNS = ("attempt", "host_ms")
"""Columns about the machine that computed the row: left out when results are compared."""


@dataclass(frozen=True)
class Column:
    """One column of the result table; ``null`` is empty where the column is never null."""

    name: str
    type: pa.DataType
    unit: str
    meaning: str
    null: str = ""


_TEXT, _INT, _FLOAT = pa.string(), pa.int64(), pa.float64()
_INTS = pa.list_(pa.int32())
_NO_NETWORK = "the method uses no network (raw_pixels), or the task failed"
_NO_TRAIN = "the method trains nothing, or nothing was admitted"
_FAILED = "the task failed"
_NO_POWER = _NO_NETWORK + ", or the device's power is unknown"

COLUMNS: tuple[Column, ...] = (
    # key
    Column("task_id", _TEXT, "", "domain, split, sampler and index of the target task"),
    Column("checkpoint", _TEXT, "", "content hash of the initial weights"),
    Column("method", _TEXT, "", "adaptation method"),
    Column("variant", _TEXT, "", "short name and hash of the settings that change the outcome"),
    Column("device", _TEXT, "", "device profile"),
    # what was adapted
    Column("backbone", _TEXT, "", "network"),
    Column("initialization", _TEXT, "", "random, pretrained or meta_trained"),
    Column("resolution", _INT, "pixels", "height and width of the network's input"),
    Column("domain", _TEXT, "", "domain of the task"),
    Column("split", _TEXT, "", "class split the task was drawn from"),
    Column("task_index", _INT, "", "index of the task in its domain"),
    Column("way", _INT, "classes", "number of classes"),
    Column("shots", _INTS, "images", "support images per class"),
    Column("support_size", _INT, "images", "support images of the task"),
    Column("query_size", _INT, "images", "query images of the task"),
    # plan
    Column("plan_status", _TEXT, "", "ok, infeasible or not_applicable"),
    Column("plan_reason", _TEXT, "", "why nothing fits, with the missing bytes or MACs; why the method has nothing to update on this network", "the plan is ok, or the method needs none"),
    Column("plan_hash", _TEXT, "", "content hash of the update plan", _NO_TRAIN),
    Column("plan_layers", _INTS, "", "indices of the layers whose weights are updated", _NO_NETWORK),
    Column("plan_channels", _INTS, "channels", "updated channels of each of these layers", _NO_NETWORK),
    Column("updated_weights", _INT, "weights", "updated convolution weights (the modules of tiny_tl and adapter_drop are none)", _NO_NETWORK),
    Column("budget_memory_bytes", _INT, "bytes", "memory the plan may take", "the method has no budget"),
    Column("budget_backward_macs", _INT, "MACs", "backward MACs of one image the plan may take", "the method has no budget"),
    # outcome
    Column("accuracy_before", _FLOAT, "share", "query accuracy before the update, 0 to 1", _FAILED),
    Column("accuracy_after", _FLOAT, "share", "query accuracy after the update, 0 to 1", _FAILED),
    Column("loss_first", _FLOAT, "nats", "loss of the first iteration", _NO_TRAIN),
    Column("loss_last", _FLOAT, "nats", "loss of the last iteration", _NO_TRAIN),
    Column("iterations", _INT, "", "iterations run"),
    Column("status", _TEXT, "", "ok, diverged, crashed, timeout or error"),
    Column("message", _TEXT, "", "what went wrong", "the status is ok"),
    Column("signature", _TEXT, "", "collapsed, stalled, selection_slow, or empty"),
    Column("mode", _TEXT, "", "reference or fast"),
    Column("accuracy_numerics", _TEXT, "", "arithmetic the accuracy was computed in"),
    Column("price_numerics", _TEXT, "", "arithmetic the device is priced in"),
    # memory
    Column("batch", _INT, "images", "batch every memory figure of this row is for", _NO_NETWORK),
    Column("fit_counter", _TEXT, "", "counter that decides whether the device's memory suffices", _NO_NETWORK),
    Column("updated_weight_bytes", _INT, "bytes", "paper counter: updated weights", _NO_NETWORK),
    Column("optimizer_bytes", _INT, "bytes", "paper counter: gradient and optimizer state", _NO_NETWORK),
    Column("forward_activation_bytes", _INT, "bytes", "paper counter: largest input + output of a layer", _NO_NETWORK),
    Column("saved_activation_bytes", _INT, "bytes", "paper counter: inputs kept for the backward pass", _NO_NETWORK),
    Column("saved_exact_bytes", _INT, "bytes", "activations this plan really has to keep", _NO_NETWORK),
    Column("parameter_bytes", _INT, "bytes", "all parameters of the network", _NO_NETWORK),
    Column("paper_memory_bytes", _INT, "bytes", "paper counter at fp32: the paper's backward-pass memory", _NO_NETWORK),
    Column("paper_peak_bytes", _INT, "bytes", "paper counter at fp32 plus all parameters", _NO_NETWORK),
    Column("peak_bytes", _INT, "bytes", "RAM needed under fit_counter, OS overhead included", _NO_NETWORK),
    Column("peak_low_bytes", _INT, "bytes", "lower end of the interval of peak_bytes: the counter's stated error", _NO_NETWORK),
    Column("peak_high_bytes", _INT, "bytes", "upper end of the interval of peak_bytes", _NO_NETWORK),
    Column("flash_bytes", _INT, "bytes", "stored parameters and code allowance", _NO_NETWORK),
    # MACs
    Column("forward_macs", _INT, "MACs", "forward pass of one image", _NO_NETWORK),
    Column("input_grad_macs", _INT, "MACs", "input gradients of one image", _NO_NETWORK),
    Column("weight_grad_macs", _INT, "MACs", "weight gradients of one image", _NO_NETWORK),
    Column("fisher_macs", _INT, "MACs", "whole Fisher pass over the task", _NO_NETWORK),
    Column("training_macs", _INT, "MACs", "all iterations over the task", _NO_NETWORK),
    # time and energy
    Column("load_ms", _FLOAT, "ms", "loading the weights from storage", _NO_NETWORK),
    Column("selection_ms", _FLOAT, "ms", "Fisher pass and selection", _NO_NETWORK),
    Column("training_ms", _FLOAT, "ms", "all iterations (or the prototypes alone)", _NO_NETWORK),
    Column("swap_ms", _FLOAT, "ms", "moving what exceeds the RAM to and from storage", _NO_NETWORK),
    Column("latency_ms", _FLOAT, "ms", "sum of the four phases", _NO_NETWORK),
    Column("latency_low_ms", _FLOAT, "ms", "lower end of the interval", _NO_NETWORK),
    Column("latency_high_ms", _FLOAT, "ms", "upper end of the interval", _NO_NETWORK),
    Column("load_mj", _FLOAT, "mJ", "energy of loading", _NO_POWER),
    Column("selection_mj", _FLOAT, "mJ", "energy of selection", _NO_POWER),
    Column("training_mj", _FLOAT, "mJ", "energy of training", _NO_POWER),
    Column("swap_mj", _FLOAT, "mJ", "energy of swapping", _NO_POWER),
    Column("energy_mj", _FLOAT, "mJ", "sum of the four phases", _NO_POWER),
    Column("energy_low_mj", _FLOAT, "mJ", "lower end of the interval", _NO_POWER),
    Column("energy_high_mj", _FLOAT, "mJ", "upper end of the interval", _NO_POWER),
    # verdict
    Column("fits", _TEXT, "", "yes, no or uncertain: RAM and flash both suffice without swapping, for every value in the counter's interval, for none, or for some; yes for raw_pixels, no for an infeasible plan", _FAILED),
    Column("ram_margin_bytes", _INT, "bytes", "RAM left (negative: missing)", _NO_NETWORK),
    Column("flash_margin_bytes", _INT, "bytes", "flash left (negative: missing)", _NO_NETWORK + ", or the device's flash is unknown"),
    Column("extrapolated", _TEXT, "", "totals that lie outside what was measured on the device, empty where none does; the interval is widened with the distance", _NO_NETWORK),
    Column("standing", _TEXT, "", "estimate, anchored, fitted or calibrated: how far time and energy can be trusted", _NO_NETWORK),
    # provenance
    Column("seed", _INT, "", "seed of the task's own random draws"),
    Column("attempt", _INT, "", "which attempt at its unit produced the row, from 1"),
    Column("host_ms", _FLOAT, "ms", "time this machine took for the tuning (shared by rows with the same plan)"),
)  # fmt: skip


def result_schema() -> pa.Schema:
    """Return the Arrow schema; unit, meaning and null stand in each field's metadata."""
    fields = [
        pa.field(
            c.name,
            c.type,
            nullable=bool(c.null),
            metadata={"unit": c.unit, "meaning": c.meaning, "null": c.null},
        )
        for c in COLUMNS
    ]
    return pa.schema(fields, metadata={"tinytrain_schema": str(SCHEMA_VERSION)})
