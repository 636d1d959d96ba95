"""RKHS PCA: printed values, agreement with scikit-learn, out-of-sample rows."""

from __future__ import annotations

import pytest
import torch
from sklearn.decomposition import KernelPCA

from sno_dist.embedding.pca import Scaling, centre, feature_pca, gram_pca
from sno_dist.errors import DataError

GRAM = torch.tensor([[1, 0.5, 0.2], [0.5, 1, 0.4], [0.2, 0.4, 1]], dtype=torch.float64)
NEW = torch.tensor([[0.6, 0.7, 0.1]], dtype=torch.float64)


def random_gram(count: int) -> torch.Tensor:
    rows = torch.randn(count, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return rows @ rows.T


def test_printed_values() -> None:
    pca = gram_pca(GRAM, 2, 0.0, "isometric")
    expected = torch.tensor([[0.1444444444, 0.1777777778, -0.3222222222]], dtype=torch.float64)
    torch.testing.assert_close(centre(NEW, pca.origin), expected, rtol=0, atol=1e-9)
    values = torch.tensor([0.80971675407, 0.4569499126], dtype=torch.float64)
    torch.testing.assert_close(pca.eigenvalues, values, rtol=0, atol=1e-9)
    assert pca.components == 2
    # the global scale makes the mean |u|^2 equal the number of components
    scale = float((2 * 3 / values.sum()) ** 0.5)
    isometric = torch.tensor([[0.4017844946, 0.2366149558]], dtype=torch.float64) * scale
    torch.testing.assert_close(pca(NEW).abs(), isometric, rtol=0, atol=1e-9 * scale)
    whitened = torch.tensor([[0.7733698506, 0.606273408]], dtype=torch.float64)
    got = gram_pca(GRAM, 2, 0.0, "whitened")(NEW).abs()
    torch.testing.assert_close(got, whitened, rtol=0, atol=1e-9)


def test_agrees_with_scikit_learn_up_to_sign_and_scale() -> None:
    gram = random_gram(20)
    pca = gram_pca(gram, 5, 0.0, "isometric")
    oracle = KernelPCA(5, kernel="precomputed").fit(gram.numpy())
    torch.testing.assert_close(
        pca.eigenvalues[:5], torch.from_numpy(oracle.eigenvalues_), rtol=1e-10, atol=0
    )
    ours, theirs = pca(gram), torch.from_numpy(oracle.transform(gram.numpy()))
    scale = ours.norm() / theirs.norm()
    torch.testing.assert_close(ours.abs(), theirs.abs() * scale, rtol=1e-10, atol=1e-10)


def test_distances_are_isometric_at_full_rank() -> None:
    gram = random_gram(12)
    u = gram_pca(gram, 7, 0.0, "isometric")(gram)
    diagonal = gram.diagonal()
    mmd = diagonal[:, None] + diagonal - 2 * gram
    ratio = (
        torch.cdist(u, u).square()[~torch.eye(12, dtype=torch.bool)]
        / mmd[~torch.eye(12, dtype=torch.bool)]
    )
    torch.testing.assert_close(ratio, ratio[:1].expand_as(ratio), rtol=1e-6, atol=0)
    assert float(u.square().sum(1).mean()) == pytest.approx(7, rel=1e-9)


def test_whitening_at_full_rank_is_a_one_hot_code() -> None:
    # the trap: every pair of training distributions ends at distance sqrt(2 N)
    source = torch.randn(8, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = gram_pca(source @ source.T, 7, 0.0, "whitened")(source @ source.T)
    gaps = torch.pdist(u) if hasattr(torch, "pdist") else torch.nn.functional.pdist(u)
    torch.testing.assert_close(gaps, torch.full_like(gaps, 16**0.5), rtol=1e-8, atol=0)


def test_components_below_the_sampling_noise_are_dropped() -> None:
    gram = random_gram(20)
    every, few = gram_pca(gram, None, 0.0, "isometric"), gram_pca(gram, None, 5.0, "isometric")
    assert every.components == len(every.eigenvalues) == 7
    assert 1 <= few.components < 7


def test_a_flat_spectrum_is_kept_to_its_last_component_above_the_noise() -> None:
    # five equal eigenvalues 1 beside noise 4, of which component k has 4 / k at most: the fifth
    # alone is above that, and tells of the four before it
    corners = torch.cat([torch.eye(5), -torch.eye(5)]).double() * 5**0.5
    assert gram_pca(corners @ corners.T, None, 4.0, "isometric").components == 5
    assert gram_pca(corners @ corners.T, None, 6.0, "isometric").components == 1


@pytest.mark.parametrize(("count", "size"), [(9, 30), (30, 9)])
@pytest.mark.parametrize("scaling", ["isometric", "whitened"])
def test_features_and_their_gram_matrix_have_the_same_components(
    count: int, size: int, scaling: Scaling
) -> None:
    source = torch.Generator().manual_seed(1)
    z = torch.randn(count, size, generator=source, dtype=torch.float64)
    new = torch.randn(4, size, generator=source, dtype=torch.float64)
    primal, dual = feature_pca(z, 5, 0.0, scaling), gram_pca(z @ z.T, 5, 0.0, scaling)
    torch.testing.assert_close(primal(z), dual(z @ z.T), rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(primal(new), dual(new @ z.T), rtol=1e-9, atol=1e-9)
    assert primal.kept == pytest.approx(dual.kept, rel=1e-12)
    torch.testing.assert_close(primal.eigenvalues, dual.eigenvalues, rtol=1e-8, atol=1e-10)


def test_the_second_centring_changes_nothing() -> None:
    gram = random_gram(12)
    pca = gram_pca(gram, 4, 0.0, "isometric")
    new = torch.randn(3, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    torch.testing.assert_close(
        pca(new), centre(new, pca.origin) @ pca.projection, rtol=0, atol=1e-10
    )


@pytest.mark.parametrize("count", [1, 4])
def test_means_that_do_not_differ_are_told(count: int) -> None:
    with pytest.raises(DataError, match=f"do not differ.*{count} seen distributions"):
        feature_pca(torch.full((count, 3), 0.25).double(), None, 0.0, "isometric")
