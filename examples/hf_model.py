#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""A model of Hugging Face transformers with fattn as its attention: one line to register it, one word to choose it."""

import torch
import transformers

import fattn.hf

fattn.hf.register()

config = transformers.LlamaConfig(vocab_size=512, hidden_size=128, intermediate_size=256, num_hidden_layers=2,
                                  num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=512)
torch.manual_seed(0)
model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
tokens = torch.randint(0, config.vocab_size, (2, 48))
padding = torch.ones_like(tokens)
padding[0, :10] = 0  # the first sequence is shorter

with torch.no_grad():
    wanted = model(tokens, attention_mask=padding).logits
    plain = model.generate(tokens, attention_mask=padding, max_new_tokens=16, do_sample=False, pad_token_id=0)
    model.set_attn_implementation("fattn")  # or from_pretrained(..., attn_implementation="fattn")
    actual = model(tokens, attention_mask=padding).logits
    fast = model.generate(tokens, attention_mask=padding, max_new_tokens=16, do_sample=False, pad_token_id=0)
error = (actual - wanted)[padding.bool()].abs().max().item()
print(f"logits: largest difference from eager attention {error:.1e}; 16 greedy tokens equal: {torch.equal(fast, plain)}")
assert error < 1e-4 and torch.equal(fast, plain)
