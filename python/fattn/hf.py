# SPDX-License-Identifier: Apache-2.0
"""Hugging Face transformers, version 5 and later.

    fattn.hf.register()
    model = AutoModelForCausalLM.from_pretrained(..., attn_implementation="fattn")

Causal and sliding-window masks are never stored, padded batches are computed without their padding, packed position ids
as sequences of their own. Other masks (prefixes, chunks) are boolean, as for "sdpa", and become a bias of the size of all
pairs."""

import inspect
from typing import Any, NamedTuple

import transformers
from transformers import masking_utils

from . import torch as door

torch = door.torch
__all__ = ["register"]


class Band(NamedTuple):
    """A causal mask that is not stored: how far back a query sees, and which keys are no padding."""

    left: int = -1  # -1: to the first key
    keep: Any = None  # bool (batch, seqlen_k), or None
    cu_seqlens: Any = None  # where packed sequences begin in (batch * seqlen), or None


def _packed(function):
    """(ids, left) of a mask function that keeps what is causal, in the window and of the same packed sequence; None of
    any other one. transformers composes such functions out of its own, so their names and cells say what they do."""
    ids, left, causal, rest = None, -1, False, [function]
    while rest:
        part = rest.pop()
        cells = dict(zip(part.__code__.co_freevars, (cell.cell_contents for cell in part.__closure__ or ())))
        name = part.__qualname__.partition(".")[0] if part.__module__ == masking_utils.__name__ else ""
        if part is masking_utils.causal_mask_function:
            causal = True
        elif name == "and_masks":
            rest.extend(cells["mask_functions"])
        elif name == "remap_positions_for_packed_sequence":  # differences of positions within a sequence stay the same
            rest.append(cells["mask_function"])
        elif name == "sliding_window_overlay" and left < 0:
            left = cells["sliding_window"] - 1
        elif name == "packed_sequence_mask_function" and ids is None:
            ids = cells["packed_sequence_mask"]
        else:
            return None
    return (ids, left) if causal and ids is not None else None


def _packed_band(ids, left, batch_size):
    ids = ids.expand(batch_size, -1)
    begins = torch.ones_like(ids, dtype=torch.bool)
    begins[:, 1:] = ids[:, 1:] != ids[:, :-1]
    begins = begins.flatten().nonzero().flatten()
    return Band(left, None, torch.nn.functional.pad(begins, (0, 1), value=ids.numel()).int())


def _mask(batch_size, q_length, kv_length, q_offset=0, kv_offset=0, mask_function=masking_utils.causal_mask_function,
          attention_mask=None, local_size=None, allow_is_causal_skip=True, config=None, **kwargs):
    """What the attention function gets: None (causal if the layer is), a Band, or a boolean mask."""
    aligned = (isinstance(q_offset, int) and isinstance(kv_offset, int)
               and q_offset + q_length == kv_offset + kv_length)  # the last query is at the last key
    chunked = local_size is not None and local_size != getattr(config, "sliding_window", None)
    if allow_is_causal_skip and aligned and not chunked and not torch.compiler.is_compiling() and (
            local_size is not None or mask_function is masking_utils.causal_mask_function):
        keep = masking_utils.prepare_padding_mask(attention_mask, kv_length, kv_offset)
        if keep is not None:
            keep = keep[:, kv_offset : kv_offset + kv_length]
            if keep.all():
                keep = None
        if keep is not None or local_size is not None:
            return Band(-1 if local_size is None else local_size - 1, keep)
        return None
    if attention_mask is None and aligned and q_length == kv_length and not torch.compiler.is_compiling():
        packed = _packed(mask_function)
        if packed is not None:
            return _packed_band(*packed, batch_size)
    return masking_utils.sdpa_mask(
        batch_size=batch_size, q_length=q_length, kv_length=kv_length, q_offset=q_offset, kv_offset=kv_offset,
        mask_function=mask_function, attention_mask=attention_mask, local_size=local_size,
        allow_is_causal_skip=allow_is_causal_skip and aligned and local_size is None, **kwargs)


def _by_sequence(query, key, value, band, options):
    """Packed sequences, each by itself."""
    flat = [tensor.reshape(-1, *tensor.shape[2:]) for tensor in (query, key, value)]
    longest = band.cu_seqlens.diff().max().item()
    out = door.attention_varlen(*flat, band.cu_seqlens, band.cu_seqlens, longest, longest, **options)
    return out.reshape(*query.shape[:2], *out.shape[1:])


def _without_padding(query, key, value, band, options):
    """Each sequence without its padding; rows of padding are zero."""
    batch, length = query.shape[:2]
    keep = band.keep
    rows = keep[:, -length:].flatten().nonzero().flatten()
    keys = keep.flatten().nonzero().flatten()
    counts_q, counts_k = keep[:, -length:].sum(1), keep.sum(1)
    cu_q, cu_k = (torch.nn.functional.pad(counts.cumsum(0), (1, 0)).int() for counts in (counts_q, counts_k))
    pick = lambda tensor, index: tensor.reshape(-1, *tensor.shape[2:]).index_select(0, index)
    out = door.attention_varlen(pick(query, rows), pick(key, keys), pick(value, keys), cu_q, cu_k, counts_q.max(),
                                counts_k.max(), **options)
    full = out.new_zeros(batch * length, *out.shape[1:])
    return full.index_copy(0, rows, out).reshape(batch, length, *out.shape[1:])


_REFUSED = ("position_bias", "cache", "head_mask")


def _attention(module, query, key, value, attention_mask, dropout=0.0, scaling=None, sliding_window=None, softcap=None,
               is_causal=None, s_aux=None, **kwargs):
    for name in _REFUSED:
        if kwargs.get(name) is not None:
            raise NotImplementedError(f"attn_implementation=\"fattn\": {name} is not supported; nearest: \"eager\"")
    if kwargs.get("output_attentions"):
        raise NotImplementedError("attn_implementation=\"fattn\": output_attentions: the probabilities are never stored; "
                                  "nearest: \"eager\"")
    query, key, value = (tensor.transpose(1, 2) for tensor in (query, key, value))
    query, key, value = (t if t.stride(-1) == 1 else t.contiguous() for t in (query, key, value))
    options = dict(softmax_scale=scaling, softcap=softcap or 0.0, dropout_p=dropout,
                   sinks=None if s_aux is None else s_aux.float())
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    if isinstance(attention_mask, Band):
        options.update(causal=True, window=(attention_mask.left, -1))
        if attention_mask.cu_seqlens is not None:
            return _by_sequence(query, key, value, attention_mask, options), None
        if attention_mask.keep is not None:
            return _without_padding(query, key, value, attention_mask, options), None
    elif attention_mask is None:
        left = -1 if sliding_window is None or not causal else sliding_window - 1
        options.update(causal=causal, window=(left, -1))
    else:
        bias = door.narrow(attention_mask[..., : key.shape[1]])
        if bias.dtype is torch.bool:
            bias = torch.zeros((), device=bias.device).masked_fill(~bias, float("-inf"))
        options["bias"] = bias.contiguous()
    return door.attention(query, key, value, **options), None


def register(name="fattn"):
    """Makes attn_implementation=name known to transformers."""
    if "q_length" not in inspect.signature(masking_utils.sdpa_mask).parameters:
        raise ImportError(f"transformers {transformers.__version__} is too old for fattn.hf; nearest: 5.0")
    transformers.AttentionInterface.register(name, _attention)
    transformers.AttentionMaskInterface.register(name, _mask)
