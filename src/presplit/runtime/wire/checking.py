"""Whether a server is ready, asked from outside as proxies and containers' keepers ask it.

Source: grpc.health.v1 (``grpc/health/v1/health.proto``), which any server of gRPC may speak.
"""

from __future__ import annotations

from typing import Any

import grpc

from presplit.core.errors import ServerError
from presplit.runtime.address import address_of
from presplit.runtime.wire import messages
from presplit.runtime.wire.client import OPTIONS
from presplit.runtime.wire.credentials import ClientCredentials, credentials_for
from presplit.runtime.wire.health import SERVING


def is_serving(
    server: str, *, within_s: float, credentials: ClientCredentials | None = None
) -> bool:
    """Whether the server at ``server`` says within ``within_s`` seconds that it takes requests.

    Raises `ServerError` with gRPC's own words if it says nothing, `SpecError` for an address of
    another form.
    """
    address, secret = address_of(server), credentials_for(server, credentials)
    channel: Any
    if secret is None:
        channel, words = grpc.insecure_channel(address, options=OPTIONS), ()
    else:
        channel = grpc.secure_channel(address, secret.channel, options=OPTIONS)
        words = secret.words
    check = channel.unary_unary(f"/{messages.HEALTH_SERVICE}/Check")
    try:
        said = check(b"", timeout=within_s, metadata=words)
    except grpc.RpcError as error:
        call: Any = error
        raise ServerError(f"{server}: {call.code().name}: {call.details()}") from error
    finally:
        channel.close()
    return messages.HealthCheckResponse.FromString(said).status == SERVING
