# SPDX-License-Identifier: Apache-2.0
"""torch.vmap as one call: the mapped dimension joins the batch or the heads, whichever needs no copy. What differs between
the elements of a map and has no place in one problem (packed lengths, a seed) is computed one element after the other."""

import torch

from ._run import ALIBI, BIAS, SINKS, TENSORS

_CU_Q, _CU_K, _USED_Q, _USED_K, _DOCUMENT_Q, _DOCUMENT_K, _PREFIX, _SEED, _OFFSET = 0, 1, 2, 3, 7, 8, 9, 10, 11
_OF_SEQUENCES = (_USED_Q, _USED_K, _DOCUMENT_Q, _DOCUMENT_K, _PREFIX)
_BATCH, _HEADS = 0, -2  # the dimension that is joined, of q, k, v, o and lse alike


class _Map:
    """Joins a mapped dimension with `axis` of each tensor, outside it, or inside: query heads that share keys."""

    def __init__(self, size, axis, inside=False):
        self.size, self.axis, self.inside = size, axis, inside

    def join(self, tensor, mapped, axis=None):
        rank = tensor.dim() - (mapped is not None)
        axis = (self.axis if axis is None else axis) % rank
        place = axis + self.inside
        if mapped is None:
            tensor = tensor.unsqueeze(place).expand(*tensor.shape[:place], self.size, *tensor.shape[place:])
        else:
            tensor = tensor.movedim(mapped, place)
        return tensor.flatten(axis, axis + 1)

    def split(self, tensor, axis=None):
        """The result and where its mapped dimension is."""
        axis = (self.axis if axis is None else axis) % tensor.dim()
        rest = tensor.shape[axis] // self.size
        return tensor.unflatten(axis, (rest, self.size) if self.inside else (self.size, rest)), axis + self.inside

    def join_options(self, tensors, mapped, batch, heads_q):
        """Those of the optional tensors that say something of each sequence or head."""
        tensors = list(tensors)
        for at in _OF_SEQUENCES if self.axis == _BATCH else ():
            if tensors[at] is not None:
                tensors[at] = self.join(tensors[at], mapped[at], 0)
        if tensors[BIAS] is not None:
            tensors[BIAS] = self._join_bias(tensors[BIAS], mapped[BIAS], batch, heads_q)
        if tensors[ALIBI] is not None:
            tensors[ALIBI] = self._join_slopes(tensors[ALIBI], mapped[ALIBI], batch)
        if tensors[SINKS] is not None and self.axis == _HEADS:
            tensors[SINKS] = self.join(tensors[SINKS], mapped[SINKS], 0)
        return tensors

    def _join_bias(self, bias, mapped, batch, heads_q):
        """Of shape (batch or 1, heads_q or 1, seqlen_q or 1, seqlen_k or 1), or with fewer dimensions."""
        rank = bias.dim() - (mapped is not None)
        if mapped is not None:
            bias = bias.movedim(mapped, 0)
        bias = bias.reshape(*bias.shape[: bias.dim() - rank], *[1] * (4 - rank), *bias.shape[bias.dim() - rank :])
        axis, extent = (0, batch) if self.axis == _BATCH else (1, heads_q)
        if mapped is None and bias.shape[axis] == 1:
            return bias
        at = axis + (mapped is not None)
        return self.join(bias.expand(*bias.shape[:at], extent, *bias.shape[at + 1 :]), None if mapped is None else 0, axis)

    def _join_slopes(self, slopes, mapped, batch):
        rank = slopes.dim() - (mapped is not None)
        if self.axis == _HEADS:
            return self.join(slopes, mapped, -1)
        if rank == 1 and mapped is None:
            return slopes
        if rank == 1:
            slopes, mapped = slopes.movedim(mapped, 0), 0
            slopes = slopes[:, None].expand(slopes.shape[0], batch, slopes.shape[1])
        return self.join(slopes, mapped, 0)


def _free(tensor, mapped, axis):
    """Does the mapped dimension join this one without a copy?"""
    moved = tensor.movedim(mapped, axis % (tensor.dim() - 1))
    axis %= tensor.dim() - 1
    outer, inner = moved.shape[axis], moved.shape[axis + 1]
    return 1 in (outer, inner) or moved.stride(axis) == moved.stride(axis + 1) * inner


def _how(size, operands, mapped, tensors, mapped_tensors, seeded, split_keys):
    """A _Map, or None: one by one. `split_keys`: each element has its own keys, or their gradients are asked for."""
    packed = any(t.dim() - (at is not None) != 4 for t, at in zip(operands, mapped))
    if seeded or mapped_tensors[_CU_Q] is not None or mapped_tensors[_CU_K] is not None:
        return None
    by_batch = any(mapped_tensors[at] is not None for at in _OF_SEQUENCES)
    by_heads = packed or mapped_tensors[SINKS] is not None
    if by_batch and by_heads:
        return None
    if by_batch:
        return _Map(size, _BATCH)
    if not split_keys and mapped[1] is None and mapped[2] is None:
        return _Map(size, _HEADS, inside=True)
    if by_heads:
        return _Map(size, _HEADS)
    shared = any(at is None for at in mapped)
    in_place = not shared and tensors[BIAS] is None and all(_free(t, at, _HEADS) for t, at in zip(operands, mapped))
    return _Map(size, _HEADS if in_place else _BATCH)


def _each(call, size, mapped, arguments):
    results = [call(*(a if at is None else a.select(at, i) for a, at in zip(arguments, mapped))) for i in range(size)]
    return tuple(torch.stack(parts) for parts in zip(*results)), (0,) * len(results[0])


def _shape(q, mapped):
    """(batch, heads_q) of one element; a packed one has no batch that anything here asks for."""
    shape = [extent for at, extent in enumerate(q.shape) if mapped is None or at != mapped % q.dim()]
    return shape[0], shape[-2]


def map_forward(call, info, in_dims, q, k, v, *shared):
    tensors, scalars = shared[:TENSORS], shared[TENSORS:]
    operands, mapped, mapped_tensors = (q, k, v), in_dims[:3], in_dims[3 : 3 + TENSORS]
    size = info.batch_size
    how = _how(size, operands, mapped, tensors, mapped_tensors, tensors[_SEED] is not None, False)
    if how is None:
        return _each(call, size, in_dims, (q, k, v, *shared))
    options = how.join_options(tensors, mapped_tensors, *_shape(q, mapped[0]))
    if how.inside:
        out, lse = call(how.join(q, mapped[0]), k, v, *options, *scalars)
    else:
        out, lse = call(*(how.join(t, at) for t, at in zip(operands, mapped)), *options, *scalars)
    (out, at), (lse, at_lse) = how.split(out), how.split(lse)
    return (out, lse), (at, at_lse)


def map_backward(call, info, in_dims, dout, dlse, q, k, v, out, lse, need_dbias, need_dsink, *shared):
    tensors, scalars = shared[:TENSORS], shared[TENSORS:]
    operands, mapped, mapped_tensors = (q, k, v), in_dims[2:5], in_dims[9 : 9 + TENSORS]
    size, one_by_one = info.batch_size, tensors[_SEED] is not None or need_dbias
    how = _how(size, operands, mapped, tensors, mapped_tensors, one_by_one, True)
    if how is not None and need_dsink and how.axis == _BATCH:
        # Each element has its own gradient, so that its sinks are heads of their own.
        how = None if any(mapped_tensors[at] is not None for at in _OF_SEQUENCES) else _Map(size, _HEADS)
    if how is None:
        dense = lambda dout, dlse, q, k, v, out, lse, *rest: call(dout, dlse, q, k, v, out.contiguous(), lse.contiguous(), *rest)
        return _each(dense, size, in_dims, (dout, dlse, q, k, v, out, lse, need_dbias, need_dsink, *shared))
    options = how.join_options(tensors, mapped_tensors, *_shape(q, mapped[0]))
    joined = [None if t is None else how.join(t, at) for t, at in zip((dout, dlse, q, k, v, out, lse), in_dims)]
    joined[5:] = (t.contiguous() for t in joined[5:])  # as the forward pass left them
    *grads, dbias, dsink = call(*joined, need_dbias, need_dsink, *options, *scalars)
    results = [how.split(grad) for grad in grads]
    results += [(dbias, None), how.split(dsink, 0) if need_dsink else (dsink, None)]
    return tuple(result for result, _ in results), tuple(at for _, at in results)
