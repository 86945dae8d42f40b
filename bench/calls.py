# SPDX-License-Identifier: Apache-2.0
"""What is timed: an implementation bound to the data of one problem."""

import math

import torch

import agreement
import fattn_c


class Declined(Exception):
    """This implementation does not do this problem; the message says why."""


class Call:
    """One implementation bound to one problem's data. run() is what is timed; outputs() are those of the last run."""

    kernel = None

    def run(self):
        raise NotImplementedError

    def outputs(self):
        raise NotImplementedError

    def bytes(self):
        return None


class TorchCall(Call):
    """A differentiable function of (q, k, v) in torch; the backward is what autograd makes of it."""

    def __init__(self, data, function, kernel):
        self.data, self.function, self.kernel = data, function, kernel
        self.backward = data.problem.direction == "bwd"
        self.inputs = [x.detach().requires_grad_(self.backward) for x in (data.q, data.k, data.v)]
        self.held = 0  # GPU memory that the forward left for the backward, its output included
        if self.backward:
            before = torch.cuda.memory_allocated() if data.device == "cuda" else 0
            self.out = function(*self.inputs)
            self.held = torch.cuda.memory_allocated() - before if data.device == "cuda" else 0

    def run(self):
        if self.backward:
            self.result = torch.autograd.grad(self.out, self.inputs, self.data.dout, retain_graph=True)
        else:
            with torch.no_grad():
                self.result = self.function(*self.inputs)

    def outputs(self):
        return dict(zip(("dq", "dk", "dv"), self.result)) if self.backward else {"o": self.result}

    def bytes(self):
        """Inputs, what the forward left, and what the allocator handed out at most during a call."""
        if self.data.device == "cpu":
            return None
        self.result = None
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        self.run()
        torch.cuda.synchronize()
        inputs = self.inputs + ([self.data.dout] if self.backward else [])
        given = self.held + sum(x.numel() * x.element_size() for x in inputs)
        return torch.cuda.max_memory_allocated() - before + given


def require(condition, reason):
    if not condition:
        raise Declined(reason)


class FattnCall(Call):
    """Ours, through the C ABI: outputs and workspace are allocated once, as a user would."""

    def __init__(self, data, text, library, device_text):
        self.data = data
        try:
            self.plan = library.plan(text, device_text)
        except fattn_c.Unsupported as error:
            raise Declined(str(error)) from None
        self.kernel = self.plan.kernel
        problem = data.problem
        lse_shape = (
            [problem.batch, problem.heads_q, problem.seqlen_q]
            if problem.total_q is None
            else [problem.heads_q, problem.total_q]
        )

        def poisoned(like):  # what is not written must not agree by chance
            return torch.full_like(like, math.nan)

        if problem.direction == "fwd":
            self.written = {"o": poisoned(data.dout)}
            if problem.lse:
                self.written["lse"] = torch.full(lse_shape, math.nan, device=data.device)
            given = {}
        else:
            want = agreement.answer(data)  # o and lse, as the forward pass would have left them
            given = {
                "o": want["o"].to(data.q.dtype),
                "lse": want["lse"].float().contiguous().reshape(lse_shape),
                "dout": data.dout,
            }
            self.written = {"dq": poisoned(data.q), "dk": poisoned(data.k), "dv": poisoned(data.v)}
        given |= {"q": data.q, "k": data.k, "v": data.v}
        given |= {
            name: value
            for name, value in (("cu_seqlens_q", data.cu_seqlens_q), ("cu_seqlens_k", data.cu_seqlens_k))
            if value is not None
        }
        self.buffers = given | self.written  # keeps the tensors alive
        workspace = torch.zeros(self.plan.workspace_bytes + 256, dtype=torch.uint8, device=data.device)
        skip = -workspace.data_ptr() % 256
        self.workspace = workspace[skip : skip + self.plan.workspace_bytes]
        self.pointers = fattn_c.buffers({name: tensor.data_ptr() for name, tensor in self.buffers.items()})

    def run(self):
        stream = torch.cuda.current_stream().cuda_stream if self.data.device == "cuda" else None
        self.plan.run(
            self.pointers,
            self.workspace.data_ptr() if self.plan.workspace_bytes else None,
            self.plan.workspace_bytes,
            stream,
        )

    def outputs(self):
        return self.written

    def bytes(self):
        return sum(x.numel() * x.element_size() for x in self.buffers.values()) + self.plan.workspace_bytes
