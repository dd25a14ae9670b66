"""Shipped profiles keep a source for every number; a broken profile is refused with file, key and what is allowed."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from tinytrain_dist.costs.profile_files import load_profile, profile_names, read_profile
from tinytrain_dist.costs.profiles import DeviceProfile, numeric_fields
from tinytrain_dist.foundation.errors import ExitCode, ProfileError
from tinytrain_dist.foundation.paths import resource_folder

REQUIRED = {
    "stm32f746", "stm32h743", "esp32_s3", "raspberry_pi_zero_2", "raspberry_pi_4b", "jetson_nano", "jetson_orin_nano",
}  # fmt: skip
GOOD = (resource_folder("device_profiles") / "stm32f746.yaml").read_text()
Broken = Callable[[str, str], Path]


@pytest.fixture
def broken(tmp_path: Path) -> Broken:
    """Write the STM32F746 profile with one text replaced; returns the file."""

    def write(old: str, new: str) -> Path:
        assert old in GOOD
        path = tmp_path / "stm32f746.yaml"
        path.write_text(GOOD.replace(old, new, 1))
        return path

    return write


def test_required_profiles_are_shipped() -> None:
    assert set(profile_names()) >= REQUIRED


@pytest.mark.parametrize("name", profile_names())
def test_every_number_of_a_shipped_profile_states_its_source(name: str) -> None:
    profile = load_profile(name)
    assert set(profile.provenance) == set(numeric_fields())


@pytest.mark.parametrize("name", profile_names())
def test_every_field_with_a_number_carries_a_unit(name: str) -> None:
    values = load_profile(name).model_dump(exclude={"provenance"})
    numbers = {key for key, value in values.items() if isinstance(value, int | float)}
    assert numbers - {"threads"} <= set(numeric_fields())


@pytest.mark.parametrize("name", profile_names())
def test_the_fit_counter_follows_the_device_class(name: str) -> None:
    profile = load_profile(name)
    small = profile.device_class == "microcontroller"
    assert profile.fit_counter == ("lifetime_int8" if small else "paper_fp32")
    assert profile.price_numerics == ("int8" if small else "fp32")
    assert (profile.storage_bandwidth_bytes_per_s == 0) == small


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("ram_bytes: 327_680", "ram_bytes: 256KB", ["'ram_bytes'", "'256KB'", "whole number of bytes"]),
        ("ram_bytes: 327_680", "ram_bytes: -5", ["'ram_bytes'", "-5", "above 0"]),
        ("ram_bytes: 327_680", "ram_bytes: 1" + 400 * "0", ["'ram_bytes'", "at most 2^53"]),
        ("ram_bytes: 327_680", "ram_bytes: true", ["'ram_bytes'", "True", "bytes"]),
        ("ram_bytes: 327_680", "ram: 327680", ["'ram_bytes'", "missing", "unknown key 'ram'"]),
        ("ram_bytes: 327_680", "ram_byts: 327680", ["unknown key 'ram_byts'", "did you mean 'ram_bytes'"]),
        ("ram_bytes: 327_680\n", "", ["'ram_bytes'", "missing"]),
        ("pointwise_ns_per_mac: 4.485", "pointwise_ns_per_mac: .nan", ["'pointwise_ns_per_mac'", "nan", "nanoseconds"]),
        ("pointwise_ns_per_mac: 4.485", "pointwise_ns_per_mac: .inf", ["'pointwise_ns_per_mac'", "inf"]),
        ("active_power_w: 0.3", "active_power_w: -0.3", ["'active_power_w'", "-0.3", "watts"]),
        ("precision: int8", "precision: int4", ["'precision'", "'int4'", "fp32, fp16 or int8"]),
        ("threads: 1", "threads: 1\nthreads: 2", ["duplicate key 'threads'"]),
        ("threads: 1", "threads: 1\n_target_: os.system", ["_target_"]),
        ("name: stm32f746", "name: ../../etc/passwd", ["'name'", "../../etc/passwd"]),
        ("name: stm32f746", "name: other", ["'name'", "'other'", "'stm32f746'"]),
        ("kind: documented", "kind: guessed", ["provenance", "kind", "'guessed'", "measured"]),
        ("  ram_bytes: {kind", "  rom_bytes: {kind", ["provenance", "'rom_bytes'"]),
        ("threads: 1", "threads: !!python/object/apply:os.system [ls]", ["python/object"]),
    ],
)
def test_a_broken_profile_names_file_key_and_what_is_allowed(
    broken: Broken, old: str, new: str, words: list[str]
) -> None:
    path = broken(old, new)
    with pytest.raises(ProfileError) as caught:
        read_profile(path)
    message = str(caught.value)
    for word in [str(path), *words]:
        assert word in message
    assert caught.value.exit_code == ExitCode.BAD_INPUT


def test_a_huge_profile_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "stm32f746.yaml"
    path.write_text(GOOD + "#" * 10_000_000)
    with pytest.raises(ProfileError, match="at most"):
        read_profile(path)


def test_an_alias_bomb_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    path.write_text("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n")
    with pytest.raises(ProfileError, match="aliases"):
        read_profile(path)


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", ".hidden", "a/b", ""])
def test_a_name_that_is_a_path_is_refused(name: str) -> None:
    with pytest.raises(ProfileError, match="device profile"):
        load_profile(name)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    outside = tmp_path / "outside.yaml"
    outside.write_text(GOOD)
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "stm32f746.yaml").symlink_to(outside)
    with pytest.raises(ProfileError, match="leads out"):
        load_profile("stm32f746", [folder])


def test_a_users_folder_goes_before_the_shipped_profiles(tmp_path: Path) -> None:
    (tmp_path / "stm32f746.yaml").write_text(GOOD.replace("ram_bytes: 327_680", "ram_bytes: 100"))
    (tmp_path / "mine.yaml").write_text(GOOD.replace("name: stm32f746", "name: mine"))
    assert load_profile("stm32f746", [tmp_path]).ram_bytes == 100
    assert "mine" in profile_names([tmp_path])
    assert load_profile("mine", [tmp_path]).name == "mine"


def test_unknown_name_and_folder_say_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="raspberry_pi_4b"):
        load_profile("raspberry_pi_4")
    with pytest.raises(ProfileError, match="no such folder"):
        profile_names([tmp_path / "nowhere"])


def test_a_number_without_a_source_counts_as_unsourced(broken: Broken) -> None:
    line = next(x for x in GOOD.splitlines(keepends=True) if x.startswith("  ram_bytes: {"))
    assert read_profile(broken(line, "")).provenance_of("ram_bytes").kind == "unsourced"


def test_a_number_that_is_changed_does_not_keep_the_source_of_the_old_one(tmp_path: Path) -> None:
    text = "name: mine\nextends: stm32f746\nram_bytes: 400_000\nflash_bytes: 1_048_576\n"
    (tmp_path / "mine.yaml").write_text(text)
    mine = load_profile("mine", [tmp_path])
    assert mine.provenance_of("ram_bytes").kind == "unsourced"
    assert mine.provenance_of("flash_bytes") == load_profile("stm32f746").provenance_of("flash_bytes")
    assert mine.provenance_of("clock_hz").kind == "documented"
    (tmp_path / "mine.yaml").write_text(text + 'provenance: {ram_bytes: {kind: measured, source: "the linker"}}\n')
    assert load_profile("mine", [tmp_path]).provenance_of("ram_bytes").kind == "measured"


def test_the_hash_follows_figures_not_the_wording_of_sources(broken: Broken) -> None:
    original = load_profile("stm32f746")
    assert read_profile(broken("data sheet", "the data sheet")).hash == original.hash
    assert read_profile(broken("ram_bytes: 327_680", "ram_bytes: 327_681")).hash != original.hash


def test_a_profile_travels_and_serves_as_a_key() -> None:
    profile = load_profile("jetson_nano")
    copy: DeviceProfile = pickle.loads(pickle.dumps(profile))
    assert copy == profile
    assert len({copy, profile}) == 1
