"""How ``tinytrain costs`` prints its answers on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

UNSOURCED = "* {} of this device without a source: may be half or double"


def print_terms(answer: dict[str, Any]) -> None:
    """Print one line per term; a plan that was priced alone has no method."""
    for key, value in answer.items():
        if key == "method" and value is None:
            continue
        if isinstance(value, dict):
            for name, part in value.items():
                print(f"{key + '_' + name:<42} {shown(name, part)}")
        else:
            print(f"{key:<42} {shown(key, value)}{_mark(key, answer)}")
    if answer.get("unsourced_limits"):
        print(UNSOURCED.format(", ".join(answer["unsourced_limits"])))


def print_methods(rows: Sequence[dict[str, Any]]) -> None:
    """Print one line per method and say what the ratios compare."""
    first = rows[0]["comparison"]
    print(f"{'method':<16} {'memory':>11} {'lifetime8':>11} {'MACs back':>9}   "
          f"memory / {first['compared_with']}: {'batch ' + str(first['batch']):>9} {'paper':>9} {'(batches)':>9}"
          f" {'MACs':>6}{'  fits' if 'fits' in rows[0] else ''}")  # fmt: skip
    for row in rows:
        ratio = row["comparison"]
        batches = f"{ratio['paper_batch']}:{ratio['compared_paper_batch']}"
        macs = "-" if ratio["backward_macs"] is None else f"{ratio['backward_macs']:.2f}"
        pad = " " * len(f"memory / {first['compared_with']}: ")
        print(f"{row['method']:<16} {_mib(row['paper_memory_bytes'])} {_mib(row['lifetime_int8_memory_bytes'])} "
              f"{row['backward_macs'] / 1e6:>8.2f}M   {pad}{ratio['memory_equal_batch']:>9.2f} "
              f"{ratio['memory_paper_batches']:>9.2f} {batches:>9} {macs:>6}  "
              f"{row.get('fits', '')}{_mark('fits', row)}")  # fmt: skip
    if rows[0].get("unsourced_limits"):
        print(UNSOURCED.format(", ".join(rows[0]["unsourced_limits"])))


def _mark(key: str, answer: dict[str, Any]) -> str:
    return "*" if key in ("fits", "ram_margin_bytes", "flash_margin_bytes") and answer.get("unsourced_limits") else ""


def shown(key: str, value: Any) -> str:
    """Return a value as text with its unit spelled out where it is bytes."""
    if value is None:
        return "unknown"
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if key.endswith("_bytes"):
        return f"{value:,} ({value / 2**20:.3f} MiB)"
    if isinstance(value, float):
        return f"{value:,.2f}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


def _mib(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:>7.2f} MiB"
