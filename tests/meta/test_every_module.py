"""More than a hundred modules of torch, learn2learn and torchvision: the gradient is that of learn2learn."""

import copy
import importlib.util
import os
import unittest
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.utils import parametrizations, prune

from metarec.errors import InputError
from metarec.meta import BatchedMAML
from tests.meta.reference import apart, gradient

squared = nn.MSELoss(reduction="none")


class Two(nn.Module):
    """A layer that takes two inputs, on the two halves of a row."""

    def __init__(self, layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(*x.chunk(2, 1)).reshape(len(x), -1)


class First(nn.Module):
    """The output of a layer that answers (output, state)."""

    def __init__(self, layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x)[0]


class Same(nn.Module):
    """A layer that takes a row several times, as attention to itself does."""

    def __init__(self, layer, times) -> None:
        super().__init__()
        self.layer, self.times = layer, times

    def forward(self, x):
        output = self.layer(*[x] * self.times)
        return output[0] if isinstance(output, tuple) else output


class Unpooled(nn.Module):
    def __init__(self, axes) -> None:
        super().__init__()
        self.pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[axes - 1](2, return_indices=True)
        self.back = (nn.MaxUnpool1d, nn.MaxUnpool2d, nn.MaxUnpool3d)[axes - 1](2)

    def forward(self, x):
        return self.back(*self.pool(x))


class Words(nn.Module):
    """An embedding of the row's numbers, as ids."""

    def __init__(self, layer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x):
        return self.layer(x.abs().mul(3).long().clamp(max=9)).flatten(1)


def attention(kind, **options):
    return kind(16, 2, dim_feedforward=8, dropout=0.0, batch_first=True, **options)


VECTOR, LINE, PLANE, SPACE = (64,), (4, 16), (4, 4, 4), (1, 4, 4, 4)

LAYERS = {
    VECTOR: {
        **{
            kind.__name__: kind
            for kind in (
                *(nn.CELU, nn.ELU, nn.GELU, nn.GLU, nn.Hardshrink, nn.Hardsigmoid, nn.Hardswish, nn.Hardtanh),
                *(nn.Identity, nn.LeakyReLU, nn.LogSigmoid, nn.Mish, nn.PReLU, nn.ReLU, nn.ReLU6, nn.SELU, nn.SiLU),
                *(nn.Sigmoid, nn.Softplus, nn.Softshrink, nn.Softsign, nn.Tanh, nn.Tanhshrink),
            )
        },
        "Linear": lambda: nn.Linear(64, 8),
        "wide Linear": lambda: nn.Linear(64, 300),
        "Softmax": lambda: nn.Softmax(1),
        "Softmin": lambda: nn.Softmin(1),
        "LogSoftmax": lambda: nn.LogSoftmax(1),
        "Threshold": lambda: nn.Threshold(0.1, 0.0),
        "RReLU": nn.RReLU,
        "Dropout": nn.Dropout,
        "AlphaDropout": nn.AlphaDropout,
        "BatchNorm1d": lambda: nn.BatchNorm1d(64),
        "BatchNorm1d without weights": lambda: nn.BatchNorm1d(64, affine=False),
        "BatchNorm1d without statistics": lambda: nn.BatchNorm1d(64, track_running_stats=False),
        "LayerNorm": lambda: nn.LayerNorm(64),
        "RMSNorm": lambda: nn.RMSNorm(64),
        "GroupNorm": lambda: nn.GroupNorm(4, 64),
        "Bilinear": lambda: Two(nn.Bilinear(32, 32, 3)),
        "CosineSimilarity": lambda: Two(nn.CosineSimilarity()),
        "PairwiseDistance": lambda: Two(nn.PairwiseDistance()),
        "RNNCell": lambda: nn.RNNCell(64, 5),
        "GRUCell": lambda: nn.GRUCell(64, 5),
        "LSTMCell": lambda: First(nn.LSTMCell(64, 5)),
        "Embedding": lambda: Words(nn.Embedding(10, 2)),
        "EmbeddingBag": lambda: Words(nn.EmbeddingBag(10, 2)),
        "weight_norm": lambda: parametrizations.weight_norm(nn.Linear(64, 8)),
        "spectral_norm": lambda: parametrizations.spectral_norm(nn.Linear(64, 8)),
        "orthogonal": lambda: parametrizations.orthogonal(nn.Linear(64, 8)),
        "weight_norm by a hook": lambda: nn.utils.weight_norm(nn.Linear(64, 8)),
        "spectral_norm by a hook": lambda: nn.utils.spectral_norm(nn.Linear(64, 8)),
        "prune": lambda: prune.random_unstructured(nn.Linear(64, 8), "weight", 0.3),
    },
    LINE: {
        "Conv1d": lambda: nn.Conv1d(4, 3, 3),
        "ConvTranspose1d": lambda: nn.ConvTranspose1d(4, 3, 3),
        "AvgPool1d": lambda: nn.AvgPool1d(2),
        "MaxPool1d": lambda: nn.MaxPool1d(2),
        "MaxUnpool1d": lambda: Unpooled(1),
        "LPPool1d": lambda: nn.LPPool1d(2, 2),
        "AdaptiveAvgPool1d": lambda: nn.AdaptiveAvgPool1d(3),
        "AdaptiveMaxPool1d": lambda: nn.AdaptiveMaxPool1d(3),
        "InstanceNorm1d": lambda: nn.InstanceNorm1d(4),
        "InstanceNorm1d with statistics": lambda: nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
        "CircularPad1d": lambda: nn.CircularPad1d(1),
        "ConstantPad1d": lambda: nn.ConstantPad1d(1, 0.5),
        "ReflectionPad1d": lambda: nn.ReflectionPad1d(1),
        "ReplicationPad1d": lambda: nn.ReplicationPad1d(1),
        "ZeroPad1d": lambda: nn.ZeroPad1d(1),
        "Dropout1d": nn.Dropout1d,
        "RNN": lambda: First(nn.RNN(16, 3, batch_first=True)),
        "GRU": lambda: First(nn.GRU(16, 3, batch_first=True)),
        "LSTM": lambda: First(nn.LSTM(16, 3, batch_first=True)),
        "LSTM of two layers": lambda: First(nn.LSTM(16, 3, 2, batch_first=True, bidirectional=True)),
        "MultiheadAttention": lambda: Same(nn.MultiheadAttention(16, 2, batch_first=True), 3),
        "TransformerEncoderLayer": lambda: attention(nn.TransformerEncoderLayer),
        "TransformerEncoder": lambda: nn.TransformerEncoder(attention(nn.TransformerEncoderLayer), 2),
        "TransformerDecoderLayer": lambda: Same(attention(nn.TransformerDecoderLayer), 2),
        "TransformerDecoder": lambda: Same(nn.TransformerDecoder(attention(nn.TransformerDecoderLayer), 2), 2),
        "Transformer": lambda: Same(attention(nn.Transformer, num_encoder_layers=1, num_decoder_layers=1), 2),
    },
    PLANE: {
        "Conv2d": lambda: nn.Conv2d(4, 3, 3),
        "Conv2d in groups": lambda: nn.Conv2d(4, 4, 3, groups=2),
        "ConvTranspose2d": lambda: nn.ConvTranspose2d(4, 3, 3),
        "AvgPool2d": lambda: nn.AvgPool2d(2),
        "MaxPool2d": lambda: nn.MaxPool2d(2),
        "MaxUnpool2d": lambda: Unpooled(2),
        "LPPool2d": lambda: nn.LPPool2d(2, 2),
        "FractionalMaxPool2d": lambda: nn.FractionalMaxPool2d(2, output_size=3),
        "AdaptiveAvgPool2d": lambda: nn.AdaptiveAvgPool2d(3),
        "AdaptiveMaxPool2d": lambda: nn.AdaptiveMaxPool2d(3),
        "BatchNorm2d": lambda: nn.BatchNorm2d(4),
        "InstanceNorm2d": lambda: nn.InstanceNorm2d(4, affine=True),
        "LocalResponseNorm": lambda: nn.LocalResponseNorm(2),
        "CrossMapLRN2d": lambda: nn.CrossMapLRN2d(2),
        "Softmax2d": nn.Softmax2d,
        "PixelShuffle": lambda: nn.PixelShuffle(2),
        "PixelUnshuffle": lambda: nn.PixelUnshuffle(2),
        "ChannelShuffle": lambda: nn.ChannelShuffle(2),
        "Upsample": lambda: nn.Upsample(scale_factor=2),
        "UpsamplingBilinear2d": lambda: nn.UpsamplingBilinear2d(scale_factor=2),
        "UpsamplingNearest2d": lambda: nn.UpsamplingNearest2d(scale_factor=2),
        "Unfold": lambda: nn.Unfold(2),
        "Fold": lambda: nn.Sequential(nn.Unfold(2), nn.Fold((4, 4), 2)),
        "CircularPad2d": lambda: nn.CircularPad2d(1),
        "ConstantPad2d": lambda: nn.ConstantPad2d(1, 0.5),
        "ReflectionPad2d": lambda: nn.ReflectionPad2d(1),
        "ReplicationPad2d": lambda: nn.ReplicationPad2d(1),
        "ZeroPad2d": lambda: nn.ZeroPad2d(1),
        "Dropout2d": nn.Dropout2d,
        "FeatureAlphaDropout": nn.FeatureAlphaDropout,
    },
    SPACE: {
        "Conv3d": lambda: nn.Conv3d(1, 2, 2),
        "ConvTranspose3d": lambda: nn.ConvTranspose3d(1, 2, 2),
        "AvgPool3d": lambda: nn.AvgPool3d(2),
        "MaxPool3d": lambda: nn.MaxPool3d(2),
        "MaxUnpool3d": lambda: Unpooled(3),
        "LPPool3d": lambda: nn.LPPool3d(2, 2),
        "FractionalMaxPool3d": lambda: nn.FractionalMaxPool3d(2, output_size=2),
        "AdaptiveAvgPool3d": lambda: nn.AdaptiveAvgPool3d(2),
        "AdaptiveMaxPool3d": lambda: nn.AdaptiveMaxPool3d(2),
        "BatchNorm3d": lambda: nn.BatchNorm3d(1),
        "InstanceNorm3d": lambda: nn.InstanceNorm3d(1),
        "CircularPad3d": lambda: nn.CircularPad3d(1),
        "ConstantPad3d": lambda: nn.ConstantPad3d(1, 0.5),
        "ReflectionPad3d": lambda: nn.ReflectionPad3d(1),
        "ReplicationPad3d": lambda: nn.ReplicationPad3d(1),
        "ZeroPad3d": lambda: nn.ZeroPad3d(1),
        "Dropout3d": nn.Dropout3d,
    },
}

IMAGES = {
    "OmniglotFC": lambda l2l, _: (l2l.OmniglotFC(28 * 28, 3), (1, 28, 28)),
    "OmniglotCNN": lambda l2l, _: (l2l.OmniglotCNN(3, hidden_size=4), (1, 28, 28)),
    "MiniImagenetCNN": lambda l2l, _: (l2l.MiniImagenetCNN(3, hidden_size=4), (3, 84, 84)),
    "CNN4": lambda l2l, _: (l2l.CNN4(3, hidden_size=4, embedding_size=4 * 25), (3, 84, 84)),
    "CNN4Backbone": lambda l2l, _: (nn.Sequential(l2l.CNN4Backbone(4), nn.LazyLinear(3)), (3, 84, 84)),
    **{
        name: lambda _, models, name=name: (models.get_model(name, weights=None, num_classes=3), (3, 32, 32))
        for name in ("shufflenet_v2_x0_5", "squeezenet1_1")
    },
}

ALWAYS_RANDOM = {"FractionalMaxPool2d", "FractionalMaxPool3d"}


def around(layer, shape):
    """The layer between two linear ones."""
    return nn.Sequential(nn.Linear(6, 64), nn.Unflatten(1, shape), layer, nn.Flatten(), nn.LazyLinear(1))


def initialised(make, rows):
    """The module in float64, with random numbers off, so that it can be compared."""
    with torch.random.fork_rng(), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        model = make()
        for part in model.modules():
            if isinstance(part, nn.modules.dropout._DropoutNd) or type(part).__name__ in (
                "StochasticDepth",
                "DropBlock",
            ):
                part.p = 0.0
        model.eval()(rows.float())
        return model.double()


@pytest.fixture(scope="module")
def learn2learn():
    from metarec.meta.engines.learn2learn_engine import _import_algorithms

    _import_algorithms()
    import learn2learn

    return learn2learn


def loop(maml, loss, support, query, steps):
    found = []
    # learn2learn leaves the kernel to torch, and only this one has a second derivative.
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with sdpa_kernel(SDPBackend.MATH):
        for x, y, qx, qy in zip(*support, *query, strict=True):
            task = maml.clone()
            for _ in range(steps):
                task.adapt(loss(task(x), y).mean())
            found.append(loss(task(qx), qy).mean())
    torch.backends.mha.set_fastpath_enabled(fast)
    return torch.stack(found).mean()


def compared(learn2learn, model, loss, support, query, steps=2, first_order=False) -> str:
    """The path by which the gradient is learn2learn's, which is of first order where there is no second derivative."""
    how = {"lr": 0.05, "allow_unused": True, "first_order": first_order}
    maml, other = BatchedMAML(model, **how), copy.deepcopy(model)
    try:
        actual = maml.meta_loss(support, query, loss=loss, steps=steps)
    except InputError as error:
        if first_order or "no second derivative" not in str(error):
            raise
        # learn2learn prints torch's error and fails on a name that it never bound.
        with pytest.raises((RuntimeError, UnboundLocalError)):
            loop(learn2learn.algorithms.MAML(other, **how), loss, support, query, steps).backward()
        return "first order: " + compared(learn2learn, model, loss, support, query, steps, first_order=True)
    expected = loop(learn2learn.algorithms.MAML(other, **how), loss, support, query, steps)
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=0)
    assert apart(gradient(actual, model), gradient(expected, other)) <= 1e-6
    return maml.path


def rows_of(shape, classes=0, numbers=(4, 3)):
    generator = torch.Generator().manual_seed(1)

    def side(number):
        inputs = torch.randn(2, number, *shape, generator=generator, dtype=torch.float64)
        targets = torch.randn(2, number, 1, generator=generator, dtype=torch.float64)
        return inputs, torch.randint(classes, (2, number), generator=generator) if classes else targets

    return [side(number) for number in numbers]


CASES = [(shape, name) for shape, layers in LAYERS.items() for name in layers]


def paths_of(learn2learn, shape, name):
    support, query = rows_of((6,))
    found = []
    for training in (True, False):
        model = initialised(lambda: around(LAYERS[shape][name](), shape), support[0][0]).train(training)
        if name in ALWAYS_RANDOM or (name == "RReLU" and training):
            maml = BatchedMAML(model, lr=0.05)
            assert maml.meta_loss(support, query, loss=squared, steps=2).isfinite()
            found.append(maml.path)
        else:
            found.append(compared(learn2learn, model, squared, support, query))
    return tuple(found)


PATHS = {
    ("one-by-one", "one-by-one"): {"GRU", "LSTM", "LSTM of two layers", "LSTMCell", "RNN"},
    ("one-by-one", "vmap"): {
        *("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "InstanceNorm1d with statistics"),
        *("spectral_norm", "spectral_norm by a hook"),
    },
    ("one-by-one", "low-rank"): {"BatchNorm1d without weights", "RReLU"},
    ("vmap", "vmap"): {
        *("Conv1d", "Conv2d", "Conv2d in groups", "Conv3d", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d"),
        *("BatchNorm1d without statistics", "GroupNorm", "InstanceNorm2d", "LayerNorm", "RMSNorm", "PReLU"),
        *("Bilinear", "Embedding", "GRUCell", "RNNCell", "MultiheadAttention", "Transformer", "TransformerDecoder"),
        *("TransformerDecoderLayer", "TransformerEncoder", "TransformerEncoderLayer"),
        *("orthogonal", "prune", "weight_norm", "weight_norm by a hook"),
    },
    ("first order: vmap", "first order: vmap"): {"EmbeddingBag"},
    ("first order: low-rank", "first order: low-rank"): {"CrossMapLRN2d", "Hardsigmoid"},
}
"""(in training, in eval mode) -> the layers with these paths. All others take the low-rank path in both modes."""


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_every_layer_of_torch(learn2learn):
    expected = {name: paths for paths, names in PATHS.items() for name in names}
    found = {name: paths_of(learn2learn, shape, name) for shape, name in CASES}
    assert len(found) > 100
    assert expected.keys() <= found.keys()
    assert found == {name: expected.get(name, ("low-rank", "low-rank")) for name in found}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("name", IMAGES)
def test_models_of_images(name, learn2learn):
    """One task after the other where a batch norm has running statistics, and together in eval mode."""
    models = pytest.importorskip("torchvision.models")
    from learn2learn.vision import models as own

    loss = nn.CrossEntropyLoss(reduction="none")
    _, shape = IMAGES[name](own, models)
    support, query = rows_of(shape, 3, (2, 2))
    for training in (True, False):
        model = initialised(lambda: IMAGES[name](own, models)[0], support[0][0]).train(training)
        statistics = any(part.training for part in model.modules() if isinstance(part, nn.BatchNorm2d))
        path = compared(learn2learn, model, loss, support, query, steps=1).removeprefix("first order: ")
        assert path == ("one-by-one" if statistics else "vmap")


SOURCE = os.environ.get("METAREC_LEARN2LEARN")


@pytest.mark.skipif(not SOURCE, reason="METAREC_LEARN2LEARN names no unpacked source release of learn2learn")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_learn2learns_own_tests_of_maml(learn2learn, monkeypatch):
    """With BatchedMAML in the place of its MAML."""
    monkeypatch.setattr(learn2learn.algorithms, "MAML", BatchedMAML)
    spec = importlib.util.spec_from_file_location("maml_test", Path(SOURCE) / "tests/unit/algorithms/maml_test.py")
    tests = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    suite = unittest.defaultTestLoader.loadTestsFromModule(tests)
    result = unittest.TestResult()
    suite.run(result)
    assert result.testsRun >= 8
    assert not result.errors, result.errors
    assert not result.failures, result.failures
