"""``tinytrain devices``: list, show or check device profiles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tinytrain_dist.costs.calibration_record import Calibration
from tinytrain_dist.costs.fit import unsourced_limits
from tinytrain_dist.costs.profile_files import load_profile, load_profiles, read_profile
from tinytrain_dist.costs.profiles import DeviceProfile, numeric_fields
from tinytrain_dist.foundation.errors import ConfigError, ExitCode
from tinytrain_dist.verbs.arguments import VerbParser, print_json

_LISTED = (
    "name", "board", "runtime", "precision", "threads", "accelerator", "standing", "ram_bytes", "flash_bytes",
)  # fmt: skip
_PHASES = tuple(Calibration.model_fields)


def main(argv: list[str]) -> ExitCode:
    """Run the verb."""
    parser = VerbParser(
        "devices",
        description="List the device profiles, show one with the source of every number, or check a file.",
        example="tinytrain devices show raspberry_pi_zero_2",
    )
    parser.add_argument("action", choices=("list", "show", "check"))
    parser.add_argument("target", nargs="?", metavar="NAME|FILE", help="profile name (show) or YAML file (check)")
    parser.add_argument("--dir", action="append", default=[], metavar="DIR", help="folder with your own profiles")
    options = parser.parse(argv)
    if options.action == "list":
        _list(load_profiles(options.dir), as_json=options.json)
        return ExitCode.DONE
    if options.target is None:
        wanted = "NAME" if options.action == "show" else "FILE"
        raise ConfigError(f"tinytrain devices {options.action}: {wanted} is missing")
    if options.action == "show":
        _show(load_profile(options.target, options.dir), as_json=options.json)
    else:
        _check(Path(options.target), options.dir, as_json=options.json)
    return ExitCode.DONE


def summary(profile: DeviceProfile) -> dict[str, Any]:
    """Return the keys of one line of ``devices list``; errors are those on rows the fit has not seen."""
    forward = profile.calibration.forward
    errors = {
        "leave_one_out_error": None if forward is None else forward.leave_one_out_error,
        "leave_family_out_error": None if forward is None else forward.leave_family_out_error,
    }
    listed = {key: getattr(profile, key) for key in _LISTED}
    unsourced = {"unsourced_limits": unsourced_limits(profile)}
    return {**listed, "training_standing": profile.training_standing, **errors, **unsourced}


def _list(profiles: list[DeviceProfile], *, as_json: bool) -> None:
    if as_json:
        print_json([summary(profile) for profile in profiles])
        return
    for row in map(summary, profiles):
        error = row["leave_family_out_error"] or row["leave_one_out_error"]
        trust = row["standing"] if error is None else f"{row['standing']} ({error:.0%} error)"
        flash = "-" if row["flash_bytes"] is None else f"{row['flash_bytes'] / 2**20:.2f}"
        ram_mark, flash_mark = (
            "*" if name in row["unsourced_limits"] else " " for name in ("ram_bytes", "flash_bytes")
        )
        print(
            f"{row['name']:<52} {row['runtime']:<16} {row['precision']:<5} t{row['threads']} {row['accelerator']:<4}"
            f" RAM {row['ram_bytes'] / 2**20:>8.2f} MiB{ram_mark} flash {flash:>6} MiB{flash_mark} {trust:<22}"
            f" training: {row['training_standing']:<10} {row['board']}"
        )

    print("* a limit without a source: 'fits' says uncertain unless twice or half of it would do")


def _show(profile: DeviceProfile, *, as_json: bool) -> None:
    if as_json:
        print_json(details(profile))
        return
    figures = set(numeric_fields())
    for key, value in details(profile).items():
        if key in figures:
            origin = profile.provenance_of(key)
            print(f"{key:<30} {'unknown' if value is None else value!s:<14} {origin.kind}: {origin.source}")
        elif key not in ("provenance", "calibration"):
            print(f"{key:<30} {value}")
    for phase in _PHASES:
        found = getattr(profile.calibration, phase)
        if found is not None:
            print(f"\ncalibration of {phase}: {found.standing}")
            for key, value in found.model_dump(exclude_defaults=True).items():
                print(f"  {key:<28} {value}")


def details(profile: DeviceProfile) -> dict[str, Any]:
    """Return every field, the standing, the content hash and the provenance of every number."""
    sources = {key: profile.provenance_of(key).model_dump() for key in numeric_fields()}
    fields = profile.model_dump(exclude={"provenance"})
    standing = {"standing": profile.standing, "training_standing": profile.training_standing}
    return {**fields, **standing, "hash": profile.hash, "provenance": sources}


def _check(path: Path, dirs: list[str], *, as_json: bool) -> None:
    profile = read_profile(path, dirs)
    unsourced = [key for key in numeric_fields() if profile.provenance_of(key).kind == "unsourced"]
    if as_json:
        print_json({**summary(profile), "valid": True, "hash": profile.hash, "unsourced": unsourced})
        return
    print(f"{path}: valid; profile {profile.name}, hash {profile.hash}")
    if unsourced:
        print("without a source: " + ", ".join(unsourced))
