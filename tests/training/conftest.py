"""A synthetic set of faces: each person is a colour pattern, each picture a noisy copy of it."""

import numpy as np
import pytest
import torch
from PIL import Image

from training.pack import decode_sources

PEOPLE, PICTURES = 6, 4


@pytest.fixture(autouse=True)
def one_thread():
    """Use one thread, as a run does: several threads wait for each other on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def crops(tmp_path):
    """A folder with 6 people of 4 pictures each, 112×112."""
    rng = np.random.default_rng(0)
    for person in range(PEOPLE):
        folder = tmp_path / "crops" / f"person_{person}"
        folder.mkdir(parents=True)
        pattern = rng.integers(0, 256, (4, 4, 3)).repeat(28, 0).repeat(28, 1)
        for number in range(PICTURES):
            noisy = (pattern + rng.normal(0, 10, pattern.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / f"p{person}_{number}.png")
    return tmp_path / "crops"


@pytest.fixture
def pack(crops, tmp_path):
    """The same crops as a pack."""
    decode_sources([crops], tmp_path / "pack")
    return tmp_path / "pack"


@pytest.fixture
def teacher(tmp_path):
    """A teacher's file with 16 numbers for each picture, similar for pictures of one person."""
    rng = np.random.default_rng(1)
    names = [f"p{p}_{n}" for p in range(PEOPLE) for n in range(PICTURES)]
    centres = rng.normal(size=(PEOPLE, 16)).repeat(PICTURES, 0)
    embedding = (centres + rng.normal(0, 0.1, centres.shape)).astype(np.float16)
    np.savez(tmp_path / "teacher.npz", names=np.array(names), embedding=embedding)
    return tmp_path / "teacher.npz"
