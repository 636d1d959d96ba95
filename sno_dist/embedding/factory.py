"""From config sections and fitted tensors to kernels and feature maps. One `match` each."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from sno_dist.config import schema
from sno_dist.diffusion.axes import Circle, OrnsteinUhlenbeck
from sno_dist.embedding import kernels
from sno_dist.embedding.feature_map import FeatureMap, KernelMeans, Nystrom, RandomFeatures
from sno_dist.embedding.fourier import FourierQuadrature
from sno_dist.embedding.heat import EigenFeatures, HeatKernel

__all__ = ["make_feature_map", "make_kernel", "wants_median"]


def wants_median(section: schema.Kernel) -> bool:
    """Whether a bandwidth is left to the data."""
    if isinstance(section, schema.SumKernel):
        return any(wants_median(term) for term in section.terms)
    return getattr(section, "bandwidth", 0) is None


def make_kernel(section: schema.Kernel, median: float) -> kernels.Kernel:
    """The kernel.

    Args:
        section: The config's section.
        median: The bandwidth where the section names none.
    """
    match section:
        case schema.GaussianKernel():
            return kernels.Gaussian(section.bandwidth or median)
        case schema.LaplaceKernel():
            return kernels.Laplace(section.bandwidth or median)
        case schema.MaternKernel():
            return kernels.Matern(section.bandwidth or median, section.order)
        case schema.RationalQuadraticKernel():
            return kernels.RationalQuadratic(section.bandwidth or median, section.alpha)
        case schema.PolynomialKernel():
            return kernels.Polynomial(section.degree, section.constant)
        case schema.HeatKernel():
            circle = section.noising == "circle"
            axis = Circle(section.period) if circle else OrnsteinUhlenbeck()
            return HeatKernel(axis, section.order, section.active, section.heat)
        case schema.SumKernel():
            terms = tuple(make_kernel(term, median) for term in section.terms)
            return kernels.WeightedSum(terms, section.weights or (1.0,) * len(terms))


def make_feature_map(section: schema.Kme, fitted: Mapping[str, Tensor]) -> FeatureMap:
    """The feature map, from what the embedding stage left.

    Args:
        section: The config's section.
        fitted: "median" () and the map's own tensors as "map.<argument>".
    """
    own = {name.removeprefix("map."): tensor for name, tensor in fitted.items()}
    kernel = make_kernel(section.kernel, float(fitted["median"]))
    match section.form:
        case schema.ExactForm():
            return KernelMeans(kernel, own["anchors"], own["lengths"])
        case schema.FourierForm():
            return FourierQuadrature(own["bandwidth"], own["extent"], own["error"])
        case schema.RandomForm():
            return RandomFeatures(own["frequencies"])
        case schema.NystromForm():
            return Nystrom(kernel, own["anchors"], own["whiten"])
        case schema.EigenForm():
            assert isinstance(kernel, HeatKernel), "refused where it is fitted"
            return EigenFeatures(kernel, own["dims"])
