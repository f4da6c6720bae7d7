"""A network's cost on a device: activation memory, and time."""

import time

import numpy as np
import torch
from torch import nn

REPEATS = 500
BLOCK, WARM = 25, 3  # timed passes per turn of a network, and untimed ones before them
EVALUATED = ("aten::dropout", "aten::batch_norm")  # elementwise in eval mode


def latencies(sessions: dict, image: torch.Tensor, repeats: int = REPEATS) -> dict[str, dict[str, str]]:
    """For each ONNX Runtime session, the median and 95th percentile time of a pass of one image (1, S, S, 3), in ms.

    The sessions take turns of BLOCK passes, so that a slow moment of the machine affects them all. Each turn begins
    with WARM passes that are not timed: the weights of a big network push a small one's out of the caches.
    """
    feed = {"image": image.numpy()}
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    while any(len(times) < repeats for times in taken.values()):
        for name, session in sessions.items():
            for _ in range(WARM):
                session.run(None, feed)
            for _ in range(min(BLOCK, repeats - len(taken[name]))):
                started = time.perf_counter()
                session.run(None, feed)
                taken[name].append(1000 * (time.perf_counter() - started))
    quantiles = {name: np.percentile(times, [50, 95]) for name, times in taken.items()}
    return {
        name: {"latency_ms": f"{median:.4g}", "latency_ms_p95": f"{late:.4g}"}
        for name, (median, late) in quantiles.items()
    }


def peak_activations(net: nn.Module, size: int, bytes_each: int) -> int:
    """Peak activation memory in bytes: the largest sum of live activations in a forward pass of one image.

    Counted on the graph of `torch.export`, operation by operation in its order: an activation is live from the
    operation that makes it to the last that reads it, so an operation's inputs and output are live during it. Views
    take no memory, and an elementwise operation overwrites an input that is not read later. Weights and kernels'
    scratch memory do not count. The image is uint8, (1, size, size, 3).

    Args:
        bytes_each: bytes per activation: 4 for float32, 1 for int8.
    """
    program = torch.export.export(net, (torch.zeros(1, size, size, 3, dtype=torch.uint8),))
    weights = {*program.graph_signature.inputs_to_parameters, *program.graph_signature.inputs_to_buffers}
    nodes = [node for node in program.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    place = {node: number for number, node in enumerate(node for node in nodes if node.name not in weights)}
    last_read = {node: max([place[user] for user in node.users if user in place] + [place[node]]) for node in place}
    buffers: list[list] = []  # nodes whose values share the memory of the first
    for node in place:
        reads = [read for read in node.all_input_nodes if read in place]
        into = [
            buffer
            for buffer in buffers
            if any(read in buffer for read in reads)
            and _bytes(node, bytes_each) <= _bytes(buffer[0], bytes_each)
            and (_is_view(node) or (_is_elementwise(node) and max(map(last_read.get, buffer)) <= place[node]))
        ]
        if into:
            into[0].append(node)
        else:
            buffers.append([node])
    spans = [(place[buffer[0]], max(map(last_read.get, buffer)), _bytes(buffer[0], bytes_each)) for buffer in buffers]
    return max(sum(size for first, last, size in spans if first <= now <= last) for now in range(len(place)))


def _is_view(node) -> bool:
    """Does it return a view of its input, or write in place?"""
    return any(result.alias_info is not None for result in node.target._schema.returns)


def _is_elementwise(node) -> bool:
    return torch.Tag.pointwise in node.target.tags or node.target._schema.name in EVALUATED


def _bytes(node, bytes_each: int) -> int:
    value = node.meta["val"]
    return value.numel() * (1 if value.dtype == torch.uint8 else bytes_each)
