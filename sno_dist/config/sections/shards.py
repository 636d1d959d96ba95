"""The data on disk: sources, split, files."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field, PositiveFloat, PositiveInt

from sno_dist.config.sections.section import Ascending, Distinct, Fraction, Natural, Section

__all__ = [
    "Digits",
    "Dirichlet",
    "Folder",
    "GaussianMixture",
    "MnistPairs",
    "Planar",
    "Shards",
    "Source",
    "Split",
]


class Digits(Section):
    """Pairs of the 1,797 handwritten digits that ship inside scikit-learn: 00..99, 8 x 16 px."""

    kind: Literal["digits"] = "digits"
    model: PositiveInt = Field(
        default=2000, description="pairs per distribution that the model may see"
    )
    judge: PositiveInt = Field(
        default=400, description="pairs per distribution that train the classifier"
    )
    reference: PositiveInt = Field(default=200, description="real held-out pairs per distribution")


class MnistPairs(Section):
    """Pairs of MNIST digits side by side, resized to 32 x 32: 00..99."""

    kind: Literal["mnist_pairs"]
    path: str | None = Field(
        default=None, description="folder of the four IDX files; none: fetch them"
    )
    model: PositiveInt = Field(
        default=2000, description="pairs per distribution that the model may see"
    )
    judge: PositiveInt = Field(
        default=800, description="pairs per distribution that train the classifier"
    )
    reference: PositiveInt = Field(default=200, description="real held-out pairs per distribution")


class GaussianMixture(Section):
    """The 6 x 6 lattice family: four equal cells a law, chosen by a rule for each half."""

    kind: Literal["gaussian_mixture"]
    seen: PositiveInt | None = Field(
        default=None, description="how many seen laws; none: all 1,620, beyond which they repeat"
    )
    unseen: PositiveInt | None = Field(
        default=None, description="how many unseen laws; none: all 324"
    )
    model: PositiveInt = Field(default=1000, description="samples per law that the model may see")
    reference: PositiveInt = Field(default=1000, description="held-out samples per law")


class Dirichlet(Section):
    """Compositions: each law a mixture of Dirichlet laws, whose parameters the split's seed draws.

    Equation: weights Dirichlet(2, ..., 2); concentrations 1 + c m, m uniform on the simplex, ln c
    uniform.
    """

    kind: Literal["dirichlet"]
    shares: PositiveInt = Field(default=3, ge=2, description="D: entries of a sample, sum 1")
    components: PositiveInt = Field(default=3, description="Dirichlet laws in each mixture")
    concentration: Annotated[tuple[PositiveFloat, PositiveFloat], Ascending] = Field(
        default=(10.0, 60.0), description="c, least and most: the more, the narrower a component"
    )
    seen: PositiveInt = Field(default=400, description="seen laws")
    unseen: PositiveInt = Field(default=40, description="unseen laws")
    model: PositiveInt = Field(default=1000, description="samples per law that the model may see")
    reference: PositiveInt = Field(default=1000, description="held-out samples per law")


Family = Literal["moons", "circles", "spirals", "swiss_roll", "pinwheel", "checkerboard", "ring"]


class Planar(Section):
    """Laws in the plane with thin structure, each family turned and stretched in many variants."""

    kind: Literal["planar"]
    families: Annotated[tuple[Family, ...], Distinct] = Field(
        default=get_args(Family), min_length=1
    )
    variants: PositiveInt = Field(default=60, description="laws of each family")
    model: PositiveInt = Field(default=1000, description="samples per law that the model may see")
    reference: PositiveInt = Field(default=1000, description="held-out samples per law")


class Folder(Section):
    """Your own data: image folders, .npy/.npz arrays, or one CSV/Parquet table with a group.

    Samples are dealt to the roles by chance, unless each image folder has folders named model,
    judge and reference.
    """

    kind: Literal["folder"]
    path: str = Field(description="a directory, or a .csv/.parquet file")
    group: str | None = Field(
        default=None, description="tables: the column that names the distribution"
    )
    columns: tuple[str, ...] | None = Field(
        default=None, description="tables: the value columns; all"
    )
    size: tuple[PositiveInt, PositiveInt] | None = Field(
        default=None, description="images: height, width to resize to; none: the first image's"
    )
    mode: Literal["L", "RGB"] = Field(default="L", description="images: grey or colour")
    reference: Fraction = Field(
        default=0.15, description="share of each distribution held out as real"
    )
    judge: Fraction = Field(default=0.25, description="share that trains the classifier")


Source = Annotated[
    Digits | MnistPairs | GaussianMixture | Dirichlet | Planar | Folder,
    Field(discriminator="kind"),
]


class Split(Section):
    """Which distributions are never trained on. A source may fix its own split."""

    unseen: Fraction = Field(default=0.3, description="share of the distributions held out")
    seed: Natural = 0


class Shards(Section):
    """The data on disk."""

    source: Source = Digits()
    path: str | None = Field(
        default=None, description="the artifact's folder or URL; none: data_shards/<name>"
    )
    split: Split = Split()
    block: PositiveInt = Field(default=256, description="samples per record")
    shard: PositiveInt = Field(default=65536, description="samples per tar at most")
    verify: Literal["full", "size"] = Field(
        default="full", description="what a reader checks of a shard"
    )
    cache: str | None = Field(
        default=None, description="where remote shards are kept; none: a temp folder"
    )
