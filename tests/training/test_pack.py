"""Archives contain every crop once and each person in one archive; decoding resumes after an
interruption."""

import numpy as np
import pytest

from training import pack
from training.faces import BYTES, open_pack, read_crops
from training.pack import decode_sources, divide_sources


def test_parts_are_small_and_together_the_whole(crops, tmp_path):
    whole = list(read_crops(crops))
    mib = 2.6 * sum(len(crop.content) for crop in whole[:4]) / 2**20
    parts = divide_sources([crops], tmp_path / "parts", mib)
    assert [part.name for part in parts] == ["crops-1.zip", "crops-2.zip", "crops-3.zip"]
    assert all(part.stat().st_size <= mib * 2**20 for part in parts)
    assert decode_sources(parts, tmp_path / "divided") == 24
    decode_sources([crops], tmp_path / "direct")
    divided, direct = open_pack(tmp_path / "divided"), open_pack(tmp_path / "direct")
    assert divided.names.tolist() == direct.names.tolist()
    assert np.array_equal(divided.images, direct.images)
    assert np.array_equal(divided.people, direct.people)


def test_a_person_who_fits_in_no_part_is_named(crops, tmp_path):
    with pytest.raises(SystemExit, match=r"person_0 alone is larger than 0.01 MiB"):
        divide_sources([crops], tmp_path, 0.01)


def test_sources_come_one_by_one_and_their_people_stay_apart(crops, tmp_path):
    into = tmp_path / "pack"
    assert decode_sources([crops], into) == 24
    assert decode_sources([crops, crops / "person_0"], into) == 28
    faces = open_pack(into)
    assert len(faces.names_of_people) == 6  # those of the second source have no folder
    other = tmp_path / "other"
    crops.rename(other)
    decode_sources([other], into)
    assert len(open_pack(into).names_of_people) == 12


def test_what_an_interrupted_call_left_is_decoded_anew(crops, tmp_path, monkeypatch):
    into, index = tmp_path / "pack", pack._write_index
    monkeypatch.setattr(pack, "_write_index", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        decode_sources([crops], into)
    monkeypatch.setattr(pack, "_write_index", index)
    assert decode_sources([crops], into) == 24
    assert (into / "images.u8").stat().st_size == 24 * BYTES
