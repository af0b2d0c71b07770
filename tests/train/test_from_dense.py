"""Sparse nets that begin with a trained dense one: their values, their connections, refusals."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from presplit.core.errors import GraphError, SpecError
from presplit.patterns.periodic_kernel import periodic_kernel
from presplit.train import sparsify
from presplit.train.layers.sparse import SparseLayer
from presplit.train.nets.axes import axes_of
from presplit.train.nets.decide import decide
from presplit.train.nets.orders import put_in_order
from presplit.train.nets.worth import PART, worth
from presplit.train.zoo import mixer, mlp, mobilenet_v2, resnet8, small_cnn, vit, waveform_cnn

IMAGES = torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SOUND = torch.randn(8, 1, 2000, generator=torch.Generator().manual_seed(0))


def sparse_layers(net):
    return {name: each for name, each in net.named_modules() if isinstance(each, SparseLayer)}


def stirred(net):
    """``net`` in evaluation mode with values that no channel shares with another."""
    torch.manual_seed(1)
    for value in [*net.parameters(), *net.buffers()]:
        if value.is_floating_point():
            value.data.add_(0.3 * torch.rand_like(value))
    return net.eval()


def patterns_of(net, **asked):
    found = decide(net, **asked)
    return {name: each.pattern for name, each in found.items() if each.pattern is not None}


@pytest.fixture
def grouped_net():
    """A perceptron with a layer of four groups that nobody put in order."""
    rng = np.random.default_rng(0)
    net = mlp((32, 64, 64, 4))
    with torch.no_grad():
        together = rng.permutation(64)[:, None] % 4 == rng.permutation(64)[None, :] % 4
        net.fc2.weight.mul_(torch.from_numpy(together))
    return net.eval()


def test_taken_values_are_those_of_the_dense_layer_where_connections_exist():
    dense = stirred(resnet8(width=16))
    sparse = sparsify(dense, layers={"block*.conv*": 1 / 4}, values="taken")
    for name, layer in sparse_layers(sparse).items():
        mask = torch.from_numpy(layer.pattern.mask())[..., None, None]
        own = dense.get_submodule(name).weight
        assert torch.equal(layer.dense_weight(), own * mask), name
    assert torch.equal(sparse.stem.norm.running_mean, dense.stem.norm.running_mean)


@pytest.mark.parametrize(
    ("make", "x", "layers"),
    [
        (lambda: resnet8(width=8), IMAGES, {"block*.conv*": 1 / 2}),
        (lambda: small_cnn(width=8), IMAGES[:, :1, :28, :28], {"block4.conv": 1 / 2}),
        (lambda: vit(width=16, depth=2, patch=8), IMAGES, {"block*": 1 / 4}),
        (lambda: mixer(width=16, depth=1, patch=8), IMAGES, {"block1.features*": 1 / 4}),
        (lambda: mlp((48, 16, 16, 4)), IMAGES[:, :, :4, :4].flatten(1), {"fc*": 1 / 4}),
        (lambda: waveform_cnn(width=16), SOUND, {"block*": 1 / 4}),
    ],
    ids=["shortcuts", "straight", "attention", "across tokens", "perceptron", "over time"],
)
def test_putting_channels_in_order_changes_no_answer_and_keeps_more(make, x, layers):
    net = stirred(make())
    patterns = patterns_of(net, layers=layers)
    scores = worth(net, patterns, x)
    drawn = {name: (each.mask() * scores[name]).sum() for name, each in patterns.items()}
    with torch.no_grad():
        before = net(x)
        kept = put_in_order(net, patterns, scores, axes_of(net, x), x)
        assert torch.allclose(net(x), before, rtol=1e-3, atol=1e-4)
    shares = [drawn[name] / scores[name].sum() for name in patterns]
    assert sum(kept.values()) > 1.02 * sum(shares)


def test_groups_that_a_net_has_are_found(grouped_net):
    x = torch.rand(64, 32)
    asked = {"fc2": 1 / 4}
    drawn, chosen = (
        sparsify(grouped_net, layers=asked, values="taken", connections=how, samples=x)
        for how in ("drawn", "chosen")
    )
    with torch.no_grad():
        wanted = grouped_net(x)
        assert torch.allclose(chosen(x), wanted, atol=1e-5)
        assert not torch.allclose(drawn(x), wanted, atol=1e-2)


def test_chosen_connections_have_the_patterns_of_drawn_ones():
    """So they run as fast: the order of channels is all that differs."""
    dense = stirred(resnet8(width=16))
    asked = {"block*.conv*": 1 / 4}
    drawn = sparse_layers(sparsify(dense, layers=asked))
    chosen = sparsify(dense, layers=asked, values="taken", connections="chosen", samples=IMAGES)
    for name, layer in sparse_layers(chosen).items():
        assert np.array_equal(layer.pattern.index, drawn[name].pattern.index)
        assert layer.order == drawn[name].order


def test_the_channels_around_a_shortcut_are_one_axis():
    axes = axes_of(resnet8(width=8).eval(), IMAGES)
    stage = axes["stem.conv.weight", 0]
    assert stage is axes["block1.conv2.weight", 0] is axes["block2.shortcut.weight", 1]
    assert stage is not axes["block1.conv1.weight", 0]
    assert axes["stem.conv.weight", 1].fixed
    assert axes["classifier.weight", 0].fixed


def test_depthwise_channels_go_along_and_heads_of_attention_stay():
    light = axes_of(mobilenet_v2(widths=(8, 16)).eval(), IMAGES)
    depthwise = [k for k in light if k[0].endswith("weight") and not light[k].fixed]
    assert depthwise
    heads = axes_of(vit(width=16, depth=1, patch=8).eval(), IMAGES)
    assert heads["block1.tokens.query.weight", 0].fixed
    assert not heads["block1.tokens.query.weight", 1].fixed
    assert not heads["block1.features.fc1.weight", 0].fixed


class Ramp(nn.Module):
    """Adds a different number to each channel."""

    def forward(self, x):
        return torch.cumsum(x, 1)


class Rows(nn.Module):
    """Follows another way for each batch, so that it cannot be followed."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(32, 32), nn.Linear(32, 4)

    def forward(self, x):
        return self.fc2(self.fc1(x) if x.sum() > 0 else self.fc1(-x))


def test_channels_that_meet_unknown_code_stay_in_order():
    net = nn.Sequential(nn.Linear(32, 32), Ramp(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    axes = axes_of(net.eval(), torch.rand(2, 32))
    assert axes["0.weight", 0].fixed
    assert not axes["2.weight", 0].fixed


class Functional(nn.Module):
    """Pools, permutes by keyword, and has a weight that is computed."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 32, 3, padding=1)
        self.conv2, self.fc1 = nn.Conv2d(32, 32, 3, padding=1), nn.Linear(64, 64)
        self.conv3 = nn.utils.parametrizations.weight_norm(nn.Conv2d(32, 64, 3, padding=1))
        self.fc2 = nn.Linear(64, 4)

    def forward(self, x):
        x = nn.functional.max_pool2d(torch.relu(self.conv1(x)), 4)
        x = nn.functional.adaptive_avg_pool2d(self.conv3(torch.relu(self.conv2(x))), 1)
        x = torch.permute(x, dims=(0, 2, 3, 1)).transpose(dim0=1, dim1=2).flatten(1)
        return self.fc2(torch.relu(self.fc1(x)))


class Auxiliary(nn.Module):
    """Has a head that only training runs."""

    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(32, 32), nn.Linear(32, 32)
        self.aux, self.out = nn.Linear(32, 4), nn.Linear(32, 4)

    def forward(self, x):
        hidden = torch.relu(self.fc1(x))
        logits = self.out(torch.relu(self.fc2(hidden)))
        return (logits, self.aux(hidden)) if self.training else logits


def test_what_only_training_runs_is_reordered_too():
    x, net = torch.rand(16, 32), stirred(Auxiliary())
    asked = {"fc2": 1 / 4}
    chosen = sparsify(net, layers=asked, values="taken", connections="chosen", samples=x)
    with torch.no_grad():
        assert torch.allclose(chosen.train()(x)[1], net.train()(x)[1], atol=1e-5)
    assert not torch.equal(chosen.fc1.weight, net.fc1.weight), "channels were reordered"


def test_functional_pools_are_followed_and_what_is_called_oddly_stays_in_order():
    net = Functional().eval()
    axes = axes_of(net, IMAGES)
    assert not axes["conv1.weight", 0].fixed
    assert axes["conv2.weight", 0].fixed
    assert not axes["fc1.weight", 0].fixed
    x = IMAGES[:4]
    sparse = sparsify(net, layers={"fc1": 1 / 4}, values="taken", connections="chosen", samples=x)
    assert sparse(x).shape == (4, 4)


def test_a_layer_whose_channels_stay_in_order_has_its_groups_chosen_by_themselves():
    torch.manual_seed(0)
    part = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
    net = nn.Sequential(part, nn.Flatten(), nn.Linear(64, 4)).eval()
    x = torch.rand(32, 2, 32)
    kept = {}
    for how in ("drawn", "chosen"):
        sparse = sparsify(
            net, layers={"0.linear*": 1 / 4}, values="taken", connections=how, samples=x
        )
        kept[how] = sum(
            float(layer.values.detach().square().sum()) for layer in sparse_layers(sparse).values()
        )
    assert kept["chosen"] > 1.05 * kept["drawn"]


@pytest.mark.parametrize(
    ("make", "x", "layers"),
    [
        (lambda: resnet8(width=8), IMAGES, {"block*.conv*": 1 / 2}),
        (lambda: waveform_cnn(width=16), SOUND, {"block*": 1 / 2}),
    ],
    ids=["images", "over time"],
)
def test_fitted_values_are_exact_where_the_dense_layer_has_no_other_connections(make, x, layers):
    torch.manual_seed(0)
    sparse = sparsify(make(), layers=layers).eval()
    dense = make().eval()
    state = sparse.state_dict()
    dense.load_state_dict(
        {
            name: sparse.get_submodule(name.rpartition(".")[0]).dense_weight()
            if name not in state
            else state[name]
            for name in dense.state_dict()
        }
    )
    again = sparsify(dense, layers=layers, values="fitted", samples=x)
    with torch.no_grad():
        for name, layer in sparse_layers(again).items():
            assert torch.allclose(layer.values, sparse.get_submodule(name).values, atol=1e-4), name


@pytest.mark.parametrize("family", ["grouped", "biregular", "tiled"])
def test_fitted_values_say_more_of_what_the_dense_net_says(family):
    torch.manual_seed(0)
    dense = mlp((48, 32, 32, 10)).eval()
    x = torch.rand(512, 48)
    with torch.no_grad():
        wanted = dense(x[256:])
        off = {
            how: float((net.eval()(x[256:]) - wanted).square().mean())
            for how in ("taken", "fitted")
            for net in [sparsify(dense, density=0.25, family=family, values=how, samples=x[:256])]
        }
    assert off["fitted"] < 0.7 * off["taken"]


def test_words_and_samples_are_refused_before_anything_is_done():
    net = mlp((32, 32, 4))
    with pytest.raises(SpecError, match="values: expected one of fresh, taken, fitted, got 'old'"):
        sparsify(net, density=0.25, values="old")
    with pytest.raises(SpecError, match="connections: 'chosen' needs samples="):
        sparsify(net, density=0.25, connections="chosen")


def test_a_net_that_cannot_be_followed_has_its_groups_chosen_layer_by_layer():
    x = torch.rand(64, 32)
    net = stirred(Rows())
    off = {}
    with torch.no_grad():
        for how in ("drawn", "chosen"):
            sparse = sparsify(
                net, layers={"fc1": 1 / 4}, values="taken", connections=how, samples=x
            )
            off[how] = float((sparse.eval()(x) - net(x)).square().mean())
            assert sparse.fc1.pattern.density == 1 / 4
    assert off["chosen"] < off["drawn"]


@pytest.mark.parametrize("family", ["tiled", "biregular", "block", "n_of_m", "diagonal"])
def test_every_family_keeps_more_if_it_is_chosen(family):
    x = torch.rand(64, 48)
    net = stirred(mlp((48, 32, 32, 4)))
    shares = {}
    for how in ("drawn", "chosen"):
        sparse = sparsify(
            net, layers={"fc2": 1 / 4}, family=family, values="taken", connections=how, samples=x
        )
        assert sparse.fc2.density == 1 / 4
        shares[how] = float(sparse.fc2.values.detach().square().sum())
    assert shares["chosen"] > 1.05 * shares["drawn"]


def test_the_entries_of_kernels_are_chosen_too():
    net = stirred(resnet8(width=8))
    asked = {"block*.conv*": periodic_kernel((3, 3), support=3)}
    drawn, chosen = (
        sparsify(net, kernels=asked, values="taken", connections=how, samples=IMAGES)
        for how in ("drawn", "chosen")
    )
    for name, layer in sparse_layers(chosen).items():
        other = sparse_layers(drawn)[name]
        assert layer.values.shape == other.values.shape
        assert float(layer.values.detach().square().sum()) > float(
            other.values.detach().square().sum()
        )


class Blocks(nn.Module):
    """Two layers on a shortcut, written as the words say that it is made with."""

    def __init__(self, *, in_place=False, named=False):
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(32, 32), nn.Linear(32, 32), nn.Linear(32, 4)
        self.unused, self.relu = nn.Linear(32, 32), nn.ReLU(inplace=in_place)
        self.in_place, self.named = in_place, named
        self.largest = 0

    def forward(self, x):
        self.largest = max(self.largest, len(x))
        x = self.fc1(input=x) if self.named else self.fc1(x)
        h = self.fc2(input=x) if self.named else self.fc2(x)
        if self.in_place:
            x += self.relu(h)
        else:
            x = x + self.relu(h)
        return self.fc3(x)


SOME = torch.rand(200, 32, generator=torch.Generator().manual_seed(0))


def of_blocks(how="fitted", **made):
    torch.manual_seed(0)
    asked = {"fc1": 1 / 4, "fc2": 1 / 4, "unused": 1 / 4}
    return sparsify(Blocks(**made).eval(), layers=asked, values=how, samples=SOME)


@pytest.mark.parametrize("made", [{"in_place": True}, {"named": True}])
def test_values_are_fitted_alike_however_the_net_is_written(made):
    plain, other, taken = of_blocks(), of_blocks(**made), of_blocks("taken")
    for name, layer in sparse_layers(plain).items():
        assert torch.equal(layer.values, other.get_submodule(name).values), name
    assert not torch.equal(plain.fc2.values, taken.fc2.values)
    assert torch.equal(plain.unused.values, taken.unused.values)


def test_worth_is_that_of_all_samples_though_few_go_through_at_a_time():
    torch.manual_seed(0)
    net = Blocks(named=True)
    scores = worth(net, ["fc1", "unused"], SOME)
    own = net.fc1.weight.detach().double().square() * SOME.double().square().mean(0)
    np.testing.assert_allclose(scores["fc1"], own.numpy(), rtol=1e-5)
    np.testing.assert_allclose(scores["unused"], net.unused.weight.detach().double().square())
    assert net.largest <= PART
    assert of_blocks().largest <= PART


class Halves(nn.Module):
    """Runs one layer on each half of its inputs."""

    def __init__(self):
        super().__init__()
        self.fc, self.head = nn.Linear(32, 32), nn.Linear(32, 4)
        self.register_buffer("first", (torch.arange(32) < 16).float())

    def forward(self, x):
        return self.head(self.fc(x * self.first) + self.fc(x * (1 - self.first)))


def test_a_layer_that_runs_twice_is_fitted_to_both_calls():
    torch.manual_seed(0)
    net = Halves().eval()
    fitted, taken = (
        sparsify(net, layers={"fc": 1 / 4}, family="biregular", values=how, samples=SOME).fc
        for how in ("fitted", "taken")
    )
    moved = (fitted.dense_weight() - taken.dense_weight()).detach().abs().amax(0)
    assert float(moved[:16].amax()) > 1e-2
    assert float(moved[16:].amax()) > 1e-2


def test_convolutions_of_any_step_and_padding_are_fitted_to_what_they_read():
    """Had other places been looked at, outputs would not be nearer to the dense layer's."""
    for kind, x, more in (
        (nn.Conv2d, IMAGES, {"stride": (2, 1), "dilation": (1, 2), "padding": (2, 1)}),
        (nn.Conv2d, IMAGES, {"padding": 1, "padding_mode": "reflect"}),
        (nn.Conv1d, SOUND, {"stride": 3, "dilation": 2, "padding": 4}),
    ):
        torch.manual_seed(0)
        net = nn.Sequential(kind(x.shape[1], 32, 1), kind(32, 32, 3, **more)).eval()
        off = {}
        with torch.no_grad():
            for how in ("taken", "fitted"):
                sparse = sparsify(net, layers={"1": 1 / 4}, values=how, samples=x)
                off[how] = float((sparse(x) - net(x)).square().mean())
        assert off["fitted"] < 0.5 * off["taken"], (kind, more)


def test_norms_before_the_first_sparse_layer_keep_what_they_know():
    dense = stirred(resnet8(width=8))
    sparse = sparsify(dense, layers={"block2.conv*": 1 / 2}, values="fitted", samples=IMAGES)
    kept = {
        name: torch.equal(norm.running_mean, dense.get_submodule(name).running_mean)
        for name, norm in sparse.named_modules()
        if isinstance(norm, nn.BatchNorm2d)
    }
    assert {name.split(".")[0] for name, same in kept.items() if same} == {"stem", "block1"}


@pytest.mark.parametrize(
    ("samples", "error", "said"),
    [
        (np.zeros((4, 32)), SpecError, "samples: expected a tensor .*got ndarray: make one with"),
        ([torch.zeros(32)], SpecError, "samples: expected a tensor .*got list: make one with"),
        (torch.zeros(1, 32), SpecError, r"at least 2 .*got one of shape \(1, 32\): give a batch"),
        (torch.tensor(1.0), SpecError, r"samples: .*got one of shape \(\): give a batch"),
        (SOME.log10().floor() / 0, SpecError, "samples: expected finite .*200 of 200.*leave"),
        (torch.zeros(4, 31), GraphError, "does not take a sample of samples=, float32 \\(31,\\)"),
    ],
    ids=["array", "list", "one", "number", "infinite", "shape"],
)
def test_samples_that_teach_nothing_are_refused(samples, error, said):
    for asked in ({"values": "fitted"}, {"connections": "chosen", "values": "taken"}):
        with pytest.raises(error, match=said):
            sparsify(mlp((32, 32, 4)), density=0.25, samples=samples, **asked)


@pytest.mark.parametrize("family", ["grouped", "tiled", "biregular", "block", "n_of_m"])
def test_layers_of_zeros_and_samples_of_zeros_break_nothing(family):
    net = mlp((32, 32, 32, 4)).eval()
    nn.init.zeros_(net.fc1.weight)
    asked = {"layers": {"fc1": 1 / 4, "fc2": 1 / 4}, "family": family}
    for x in (SOME, torch.zeros_like(SOME)):
        for connections in ("drawn", "chosen"):
            made = sparsify(net, values="fitted", connections=connections, samples=x, **asked)
            assert not made.fc1.values.any()
            assert made.fc2.values.isfinite().all()
