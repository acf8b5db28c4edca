"""Pairs are looked up and counted rightly; the network here is one fixed projection of pixels."""

import csv

import numpy as np
import pytest
import torch

from training import measure
from training.faces import read_faces


@pytest.fixture
def network():
    """A projection of the picture's 4×4 colours: alike pictures get alike embeddings."""
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.AvgPool2d(28), torch.nn.Flatten(), torch.nn.Linear(48, 512, bias=False)
    ).eval()


def test_embeddings_are_normalised_and_do_not_depend_on_the_batch(network, crops):
    images = read_faces([crops]).images
    vectors = measure.embed(network, images)
    assert vectors.shape == (24, 512)
    assert torch.allclose(vectors.norm(dim=1), torch.ones(24), atol=1e-5)
    assert torch.allclose(vectors, measure.embed(network, images, batch=5), atol=1e-6)


def test_pairs_of_a_file_are_looked_up_by_name(network, crops, tmp_path):
    rows = [("image_a", "image_b", "same"), ("p0_0", "p0_1", 1), ("p0_0", "p3_2", 0)]
    with (tmp_path / "pairs.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    similarities, same = measure.pairs_of_file(network, read_faces([crops]), tmp_path / "pairs.csv")
    assert similarities[0] > 0.95 > similarities[1]
    assert same.tolist() == [True, False]


def test_a_missing_picture_of_a_pair_is_an_error(network, crops, tmp_path):
    (tmp_path / "pairs.csv").write_text("image_a,image_b,same\np0_0,stranger,0\n")
    with pytest.raises(SystemExit, match="1 pictures of the pairs are missing, stranger"):
        measure.pairs_of_file(network, read_faces([crops]), tmp_path / "pairs.csv")


def test_pairs_of_people_are_all_pairs_once(network, crops):
    similarities, same = measure.pairs_of_people(network, read_faces([crops]))
    assert len(similarities) == 24 * 23 // 2
    assert same.sum() == 6 * (4 * 3 // 2)
    assert similarities[same].min() > similarities[~same].max()


def test_a_grey_picture_equals_its_grey_copy(network, crops):
    grey = np.full((2, 112, 112, 3), 77, np.uint8)
    assert measure.grey_cosine(network, grey) == pytest.approx(1, abs=1e-5)
    assert measure.grey_cosine(network, read_faces([crops]).images) < 0.95
