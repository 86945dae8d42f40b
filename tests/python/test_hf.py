# SPDX-License-Identifier: Apache-2.0
import pytest
import torch
import transformers

import fattn.hf

fattn.hf.register()

SMALL = dict(vocab_size=97, hidden_size=64, intermediate_size=96, num_hidden_layers=4, num_attention_heads=4,
             num_key_value_heads=2, head_dim=16, max_position_embeddings=256, pad_token_id=0, bos_token_id=1, eos_token_id=2)


def build(kind):
    torch.manual_seed(0)
    if kind == "llama":
        config = transformers.LlamaConfig(**SMALL)
    elif kind == "mistral":
        config = transformers.MistralConfig(**SMALL, sliding_window=9)
    elif kind == "gemma2":
        config = transformers.Gemma2Config(**SMALL, sliding_window=9, attn_logit_softcapping=5.0, query_pre_attn_scalar=16)
    else:
        config = transformers.GptOssConfig(**{**SMALL, "num_local_experts": 4, "num_experts_per_tok": 2}, sliding_window=9)
    models = []
    for implementation in ("eager", "fattn"):
        config._attn_implementation = implementation
        torch.manual_seed(1)
        model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=implementation)
        assert model.config._attn_implementation == implementation
        models.append(model.float())
    models[1].load_state_dict(models[0].state_dict())
    if kind == "gpt_oss":
        for layers in zip(*(model.model.layers for model in models)):
            torch.nn.init.normal_(layers[0].self_attn.sinks)
            layers[1].self_attn.sinks.data.copy_(layers[0].self_attn.sinks)
    return models


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
def test_forward_and_backward_agree_with_eager(kind, inputs):
    eager, ours = build(kind)
    ids = torch.randint(3, 97, (2, 30), generator=torch.Generator().manual_seed(2))
    given = INPUTS[inputs](ids)
    keep = given.get("attention_mask", torch.ones_like(ids)).bool()
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
def test_greedy_tokens_agree_with_eager(kind, padded):
    eager, ours = build(kind)
    ids = torch.randint(3, 97, (2, 24), generator=torch.Generator().manual_seed(3))
    mask = torch.arange(24)[None] >= torch.tensor([[0], [7 if padded else 0]])
    options = dict(attention_mask=mask.long(), max_new_tokens=12, do_sample=False, eos_token_id=None)
    assert torch.equal(eager.eval().generate(ids, **options), ours.eval().generate(ids, **options))


def test_masks_of_a_band_are_not_stored():
    _, ours = build("mistral")
    seen = []
    attention = fattn.hf._attention
    transformers.AttentionInterface.register("fattn", lambda *a, **k: seen.append(a[4]) or attention(*a, **k))
    try:
        ours(torch.randint(3, 97, (2, 30)))
    finally:
        fattn.hf.register()
    assert len(seen) == 4 and all(mask == fattn.hf.Band(8) for mask in seen)


def test_what_cannot_be_done_is_refused():
    _, ours = build("llama")
    with pytest.raises(NotImplementedError, match="output_attentions"):
        ours(torch.randint(3, 97, (1, 5)), output_attentions=True)
