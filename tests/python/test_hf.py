# SPDX-License-Identifier: Apache-2.0
import copy

import pytest
import torch
import transformers

import fattn.hf

fattn.hf.register()

SMALL = dict(vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
             num_key_value_heads=2, head_dim=16, max_position_embeddings=256, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def build(kind, device, dtype=torch.float32, **changes):
    shape = {**SMALL, **changes}
    if kind == "llama":
        config = transformers.LlamaConfig(**shape)
    elif kind == "mistral":
        config = transformers.MistralConfig(**shape, sliding_window=9)
    elif kind == "gemma2":
        config = transformers.Gemma2Config(**shape, sliding_window=9, attn_logit_softcapping=5.0, query_pre_attn_scalar=16)
    else:
        config = transformers.GptOssConfig(**{**shape, "num_local_experts": 4, "num_experts_per_tok": 2}, sliding_window=9)
    models = []
    for implementation in ("eager", "fattn"):
        torch.manual_seed(1)
        # A configuration of its own: models that share one share the implementation as well.
        model = transformers.AutoModelForCausalLM.from_config(copy.deepcopy(config), attn_implementation=implementation)
        models.append(model.float())
    assert [model.config._attn_implementation for model in models] == ["eager", "fattn"]
    models[1].load_state_dict(models[0].state_dict())
    if kind == "gpt_oss":
        for layers in zip(*(model.model.layers for model in models)):
            torch.nn.init.normal_(layers[0].self_attn.sinks)
            layers[1].self_attn.sinks.data.copy_(layers[0].self_attn.sinks)
    return [model.to(device, dtype) for model in models]


KINDS = ["llama", "mistral", "gemma2", "gpt_oss"]
INPUTS = {
    "full": lambda ids: dict(input_ids=ids),
    "left_padded": lambda ids: dict(input_ids=ids, attention_mask=torch.arange(ids.shape[1])[None] >= torch.tensor([[0], [11]])),
    "right_padded": lambda ids: dict(input_ids=ids, attention_mask=torch.arange(ids.shape[1])[None] < torch.tensor([[30], [17]])),
    "packed": lambda ids: dict(input_ids=ids, position_ids=torch.cat([torch.arange(12), torch.arange(ids.shape[1] - 12)])[None]
                               .expand(2, -1)),
}


@pytest.mark.parametrize("inputs", INPUTS)
@pytest.mark.parametrize("kind", KINDS)
def test_forward_and_backward_agree_with_eager(rows, kind, inputs):
    eager, ours = build(kind, rows)
    ids = torch.randint(3, 97, (2, 30), generator=torch.Generator().manual_seed(2))
    given = {name: value.to(rows) for name, value in INPUTS[inputs](ids).items()}
    keep = given.get("attention_mask", torch.ones_like(ids)).bool().to(rows)
    losses = []
    for model in (eager, ours):
        model.train()
        logits = model(**given, use_cache=False).logits[keep]
        losses.append((logits.log_softmax(-1)[:, 5].sum(), logits))
        losses[-1][0].backward()
    assert (losses[0][1] - losses[1][1]).abs().max() < 2e-5 * max(1, losses[0][1].abs().max())
    for (name, expected), (_, actual) in zip(eager.named_parameters(), ours.named_parameters()):
        if expected.grad is not None:
            assert actual.grad is not None, name
            assert (expected.grad - actual.grad).abs().max() < 1e-4 * max(1, expected.grad.abs().max()), name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("padded", [False, True])
def test_greedy_tokens_agree_with_eager(rows, kind, padded):
    eager, ours = build(kind, rows)
    ids = torch.randint(3, 97, (2, 24), generator=torch.Generator().manual_seed(3)).to(rows)
    mask = (torch.arange(24)[None] >= torch.tensor([[0], [7 if padded else 0]])).to(rows)
    options = dict(attention_mask=mask.long(), max_new_tokens=12, do_sample=False, eos_token_id=None)
    assert torch.equal(eager.eval().generate(ids, **options), ours.eval().generate(ids, **options))


@pytest.mark.parametrize("kind", ["llama", "mistral"])
def test_bfloat16_by_the_rows_of_the_device(device, kind):
    """No row is named: beside eager in fp32, the error is that of eager in bfloat16."""
    shape = dict(head_dim=64, hidden_size=256)
    exact = build(kind, device, **shape)[0]
    ids = torch.randint(3, 97, (2, 200), generator=torch.Generator().manual_seed(2)).to(device)
    loss = lambda model: model.train()(ids, use_cache=False).logits.float().log_softmax(-1)[..., 5].mean()
    errors = []
    wanted = torch.autograd.grad(loss(exact), exact.parameters())
    for model in build(kind, device, torch.bfloat16, **shape):
        grads = torch.autograd.grad(loss(model), model.parameters())
        errors.append([(a.float() - b).norm().item() / b.norm().item() for a, b in zip(grads, wanted) if b.norm() > 0])
        with torch.no_grad():
            errors[-1].append((model(ids).logits.float() - exact(ids).logits).abs().max().item())
    for eager, ours in zip(*errors):
        assert ours <= 1.5 * eager + 1e-3


def masks_of(model, **inputs):
    """What the attention function got from each layer."""
    seen = []
    attention = fattn.hf._attention
    transformers.AttentionInterface.register("fattn", lambda *a, **k: seen.append(a[4]) or attention(*a, **k))
    try:
        model(**inputs)
    finally:
        fattn.hf.register()
    return seen


def test_masks_of_a_band_are_not_stored():
    ids = torch.randint(3, 97, (2, 30))
    assert masks_of(build("mistral", "cpu")[1], input_ids=ids) == [fattn.hf.Band(8)] * 4
    for kind, lefts in (("llama", [-1]), ("mistral", [8]), ("gemma2", [-1, 8])):
        packed = masks_of(build(kind, "cpu")[1], **INPUTS["packed"](ids), use_cache=False)
        assert len(packed) == 4 and {mask.left for mask in packed} == set(lefts)
        assert all(mask.keep is None and mask.cu_seqlens.tolist() == [0, 12, 30, 42, 60] for mask in packed)


def test_masks_that_only_look_like_packed_ones_are_kept_whole():
    from transformers import masking_utils

    def odd(batch_idx, head_idx, q_idx, kv_idx):
        return (kv_idx % 2 == 0) & (kv_idx <= q_idx)

    ids = torch.arange(8)[None] // 3
    packed = masking_utils.packed_sequence_mask_function(ids)
    causal = masking_utils.causal_mask_function
    assert fattn.hf._packed(masking_utils.and_masks(packed, odd)) is None
    assert fattn.hf._packed(masking_utils.and_masks(packed, masking_utils.or_masks(causal, odd))) is None
    assert fattn.hf._packed(packed) is None and fattn.hf._packed(causal) is None
    assert fattn.hf._packed(masking_utils.and_masks(packed, causal)) == (ids, -1)


def test_what_cannot_be_done_is_refused():
    _, ours = build("llama", "cpu")
    with pytest.raises(NotImplementedError, match="output_attentions"):
        ours(torch.randint(3, 97, (1, 5)), output_attentions=True)
