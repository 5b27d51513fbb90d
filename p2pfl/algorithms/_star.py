"""What a hub says to members and makes of their answers, when models travel sketched.

Source: Wang & Zhang, "Matrix Sketching for Secure Collaborative Machine Learning" (DBCL), section 4.2, equation 2.
Shapes: D parameters, S numbers of a sketch, K members that answered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from p2pfl.messages import HUB, Mail, Message, PeerId
from p2pfl.peer import KEY_BYTES, Peer


def refuse_other_graphs(algorithm: str, links: Sequence[tuple[PeerId, PeerId]]) -> None:
    """Raises ValueError unless every link has the hub at one end."""
    if any(HUB not in link for link in links):
        raise ValueError(f"{algorithm} runs on a star around the hub only: leave topology out, or say 'topology: star'")


def keys_of(me: Peer, models: Mail) -> dict[PeerId, bytes]:
    """The keys that a hub sent with its model; what is of another length is none."""
    keys = {j: bytes(message.figures["key"]) for j, message in models.items()}  # type: ignore[arg-type]
    return {j: key for j, key in keys.items() if len(key) == (KEY_BYTES if me.sketch.keyed else 0)}


def models(me: Peer, x_D: Tensor, to: Sequence[PeerId], r: int, own_keys: bool) -> dict[PeerId, Message]:
    """`key, down(x)` for each of `to`: all under one fresh key, or each under one of its own."""
    keys = {i: me.fresh_key(r, i) if own_keys else me.fresh_key(r) for i in to}
    sketched = {key: me.pair.down(x_D, key).cpu() for key in dict.fromkeys(keys.values())}
    said = {key: Message("model", r, {"params": z_S}, {"key": key}) for key, z_S in sketched.items()}
    return {i: said[key] for i, key in keys.items()}


def update(me: Peer, mail: Mail, post: Mapping[PeerId, Message]) -> Tensor:
    """What the answers to `post` amount to, of D numbers, each weighing as much as its sender has examples.

    Those under one key are merged as they come, and then go `up` at once; others go `up` first.
    """
    total = sum(me.roster.examples[i] for i in mail)
    weights_K = [me.roster.examples[i] / total for i in mail]
    keys_K = [bytes(post[i].figures["key"]) for i in mail]  # type: ignore[arg-type]
    rows_KS = [(m.tensors["params"] - post[i].tensors["params"]).to(me.task.device) for i, m in mail.items()]
    if len(set(keys_K)) == 1:
        return me.pair.up(me.aggregator.merge(rows_KS, weights_K), keys_K[0])
    return me.aggregator.merge([me.pair.up(z_S, key) for z_S, key in zip(rows_KS, keys_K, strict=True)], weights_K)
