"""The hosted tails on Ray Serve: a real cluster on this machine, where Ray is installed."""

from __future__ import annotations

import importlib.util
import os
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import numpy as np
import pytest

from presplit.bundle import Bundle
from presplit.core.errors import InputError, MissingLibrary, ServerError, SpecError
from presplit.core.plans import Plan
from presplit.runtime import Edge
from presplit.runtime.hosted import Hosted, TooLate, UnknownModel
from presplit.runtime.serving.ray_app import Cluster, application_of
from presplit.runtime.serving.server import hosting
from presplit.runtime.wire import messages

INSTALLED = importlib.util.find_spec("ray") is not None
real = pytest.mark.skipif(not INSTALLED, reason="Ray is not installed: pip install 'presplit[ray]'")


def test_ray_is_not_started_where_others_could_reach_it_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("RAY_USE_TLS", raising=False)
    with pytest.raises(ServerError, match="ports on every address of this machine"):
        Cluster()
    with pytest.raises(ServerError, match="gRPC ingress listens on port 9000 of every address"):
        Cluster(ingress=9000)
    with pytest.raises(SpecError, match="replicas must be at least 1, got 0"):
        Cluster(replicas=0, insecure=True)
    # Others of a user's own cluster are that user's to keep out; an ingress is open all the same.
    monkeypatch.setenv("RAY_ADDRESS", "192.0.2.1:6379")
    with pytest.raises(ServerError, match="gRPC ingress listens"):
        Cluster(ingress=9000)


@pytest.mark.skipif(INSTALLED, reason="Ray is installed")
def test_without_ray_one_sentence_says_what_brings_it() -> None:
    with pytest.raises(MissingLibrary, match=r"pip install .*\[ray\]"):
        Cluster(insecure=True)


@real
@pytest.mark.long
def test_the_command_serves_on_ray_and_an_edge_asks_it_as_ever(bundle: Bundle, start: Any) -> None:
    images = np.random.default_rng(1).normal(size=(20, 16)).astype(np.float32)
    with Edge.open(bundle, plan=Plan(bundle.net.last)) as alone:
        expected = [alone.answer(image).label for image in images]
    options = ("--engine", "ray", "--insecure", "--port", "0", "--json")
    with start("presplit", "serve", str(bundle.path), *options) as (address, process):
        with Edge.open(bundle, server=address, plan=Plan(1, deadline_s=5.0)) as edge:
            answers = [edge.answer(image) for image in images]
        process.terminate()
        assert process.wait(30) == 0
    assert {answer.why for answer in answers} == {"server"}
    assert [answer.label for answer in answers] == expected


@pytest.fixture(scope="module")
def port() -> int:
    with socket.socket() as tried:
        tried.bind(("127.0.0.1", 0))
        return tried.getsockname()[1]


@pytest.fixture(scope="module")
def cluster(port: int) -> Iterator[Cluster]:
    with Cluster(replicas=2, ingress=port, insecure=True) as found:
        yield found


@pytest.fixture(scope="module")
def hosted(cluster: Cluster, bundle: Bundle, other_bundle: Bundle) -> Iterator[Hosted]:
    """The first of two bundles: calls to the ingress have to say which one they mean."""
    one, other = cluster.host(bundle), cluster.host(other_bundle)
    yield one
    one.close()
    other.close()


@real
@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_replicas_give_the_same_bits_and_refuse_in_the_same_words(
    hosted: Hosted, bundle: Bundle
) -> None:
    own = hosting(bundle)
    for split, codec in ((0, "float32"), (1, "int8"), (2, "float16")):
        name = bundle.manifest.model_name(split, codec)
        form = hosted.contract(name).input
        assert form == own.contract(name).input
        array = np.random.default_rng(split).integers(-99, 99, (3, *form.shape)).astype(form.dtype)
        hosted.warm(name).result(60)
        found = hosted.run(name, array, until=time.monotonic() + 10).result()
        np.testing.assert_array_equal(found, own.run(name, array, until=None).result())
        with pytest.raises(InputError, match="must have shape"):
            hosted.run(name, array[:, :1], until=None)
        with pytest.raises(TooLate):
            hosted.run(name, array, until=time.monotonic() - 1)
    with pytest.raises(UnknownModel, match="no model 'nope' here"):
        hosted.run("nope", np.zeros((1, 2), np.float32), until=None)
    assert hosted.most_bytes == own.most_bytes
    own.close()


@real
@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_an_edge_asks_a_tail_behind_rays_ingress(hosted: Hosted, bundle: Bundle, port: int) -> None:
    """Of two applications it means the one that its metadata names; without them nobody's."""
    images = np.random.default_rng(0).normal(size=(20, 16)).astype(np.float32)
    server, plan = f"127.0.0.1:{port}", Plan(1, codec="int8", deadline_s=5.0)
    with Edge.open(bundle, plan=Plan(bundle.net.last)) as alone:
        expected = [alone.answer(image).label for image in images]
    named = [("application", application_of(bundle))]
    with Edge.open(bundle, server=server, metadata=named, plan=plan) as edge:
        answers = [edge.answer(image) for image in images]
    assert {answer.why for answer in answers} == {"server"}
    assert sum(a.label == b for a, b in zip(answers, expected, strict=True)) >= len(images) - 1
    with Edge.open(bundle, server=server, plan=plan) as lost:
        assert {lost.answer(image).why for image in images[:2]} == {"refused"}


@real
@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_the_ingress_refuses_with_the_protocols_statuses(
    hosted: Hosted, bundle: Bundle, port: int
) -> None:
    words = [("application", application_of(bundle))]
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        ask: Callable[[str, bytes], Any] = lambda call, raw: channel.unary_unary(  # noqa: E731
            messages.path(call)
        )(raw, timeout=10, metadata=words)
        live = messages.ServerLiveResponse.FromString(ask("ServerLive", b""))
        assert live.live
        with pytest.raises(grpc.RpcError) as damaged:
            ask("ModelInfer", b"\xff\xff")
        assert damaged.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert damaged.value.details() == "the request is not a ModelInferRequest"
        unknown = messages.ModelReadyRequest(name="nope").SerializeToString()
        with pytest.raises(grpc.RpcError) as missing:
            ask("ModelReady", unknown)
        assert missing.value.code() is grpc.StatusCode.NOT_FOUND


@real
@pytest.mark.long
@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_every_limit_is_finite_and_nobody_comes_in_without_the_token(hosted: Hosted) -> None:
    from ray import serve

    assert os.environ["RAY_AUTH_MODE"] == "token"
    assert len(os.environ["RAY_AUTH_TOKEN"]) >= 32
    assert os.environ["RAY_USAGE_STATS_ENABLED"] == "0"
    running = serve.context._get_global_client().get_serve_details()
    assert running["grpc_options"]["request_timeout_s"] == 10
    for application in running["applications"].values():
        (tails,) = application["deployments"].values()
        settings = tails["deployment_config"]
        assert 0 < settings["max_ongoing_requests"] <= 64
        assert 0 < settings["max_queued_requests"] <= 1024
        assert settings["autoscaling_config"]["max_replicas"] == 2
        assert settings["autoscaling_config"]["target_ongoing_requests"] == 8
