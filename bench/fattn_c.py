# SPDX-License-Identifier: Apache-2.0
"""The C interface of fattn (include/fattn/fattn.h) through ctypes: what benchmarks need of it, and no other package."""

import ctypes

# In the order of fattn_buffers.
BUFFERS = (
    "q k v o lse max_logit dout dlse dq dk dv dbias dsink cu_seqlens_q cu_seqlens_k seqused_q seqused_k bias "
    "alibi_slopes sinks document_q document_k prefix block_offsets block_columns block_bits block_mask dropout_seed "
    "dropout_offset q_descale k_descale v_descale page_table k_new v_new leftpad rotary_cos rotary_sin"
).split()
UNSUPPORTED = 2
# Structs whose inside is of no interest are passed as zeroed memory larger than they are.
OPAQUE_BYTES = 4096


class Error(RuntimeError):
    """What fattn_last_error() says."""


class Unsupported(Error):
    """A valid problem that no row accepts."""


class Buffers(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t)] + [(name, ctypes.c_void_p) for name in BUFFERS]


class Traffic(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t)] + [
        (name, ctypes.c_double) for name in ("bytes", "standard_bytes", "memory_bytes", "standard_memory_bytes")
    ]


class Device(ctypes.Structure):
    _fields_ = [
        ("struct_size", ctypes.c_size_t),
        ("kind", ctypes.c_int32),
        ("index", ctypes.c_int32),
        ("name", ctypes.c_char * 64),
        ("compute_capability", ctypes.c_int32),
        ("sm_count", ctypes.c_int32),
        ("shared_memory_per_block", ctypes.c_int64),
        ("l2_bytes", ctypes.c_int64),
        ("memory_bytes", ctypes.c_int64),
        ("threads", ctypes.c_int32),
        ("avx2", ctypes.c_int32),
        ("avx512", ctypes.c_int32),
        ("amx_bf16", ctypes.c_int32),
        ("peak_16bit_tflops", ctypes.c_double),
        ("memory_gb_per_second", ctypes.c_double),
        ("avx512_bf16", ctypes.c_int32),
    ]


def buffers(pointers):
    """{name: address} to the C struct. The caller keeps the memory alive."""
    unknown = pointers.keys() - set(BUFFERS)
    if unknown:
        raise Error(f"no buffers are called {', '.join(sorted(unknown))}")
    return Buffers(struct_size=ctypes.sizeof(Buffers), **pointers)


class Library:
    def __init__(self, path):
        self._c = ctypes.CDLL(str(path))
        self._c.fattn_last_error.restype = ctypes.c_char_p
        self._c.fattn_plan_from_text.argtypes = [ctypes.c_char_p] * 3 + [ctypes.c_void_p]
        self._c.fattn_run.argtypes = [
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_void_p,
            ctypes.c_size_t,
            ctypes.c_void_p,
        ]
        self._c.fattn_plan_destroy.argtypes = [ctypes.c_void_p]
        for name in ("kernel", "workspace_bytes", "flops"):
            getattr(self._c, f"fattn_plan_{name}").argtypes = [ctypes.c_void_p] * 2
        self._c.fattn_plan_traffic.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
        self._c.fattn_plan_explain.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
        self._c.fattn_problem_from_text.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
        self._c.fattn_problem_to_text.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t, ctypes.c_void_p]
        self._c.fattn_device_from_text.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]

    def call(self, name, *arguments):
        status = getattr(self._c, name)(*arguments)
        if status:
            message = self._c.fattn_last_error().decode(errors="replace")
            raise (Unsupported if status == UNSUPPORTED else Error)(message)

    def text(self, name, handle):
        """What a function of (handle, buffer, capacity, needed) writes."""
        needed = ctypes.c_size_t()
        self.call(name, handle, None, 0, ctypes.byref(needed))
        buffer = ctypes.create_string_buffer(needed.value)
        self.call(name, handle, buffer, needed.value, None)
        return buffer.value.decode()

    @property
    def version(self):
        parts = [ctypes.c_int() for _ in range(3)]
        self.call("fattn_version", *map(ctypes.byref, parts))
        return ".".join(str(part.value) for part in parts)

    def device(self, text):
        device = Device()
        self.call("fattn_device_from_text", text.encode(), ctypes.byref(device), ctypes.sizeof(device))
        return device

    def canonical(self, text):
        """The problem as the library prints it; Error for what it does not accept."""
        problem = (ctypes.c_char * OPAQUE_BYTES)()
        self.call("fattn_problem_from_text", text.encode(), problem, OPAQUE_BYTES)
        return self.text("fattn_problem_to_text", problem)

    def plan(self, text, device, kernel=None):
        return Plan(self, text, device, kernel)


class Plan:
    def __init__(self, library, text, device, kernel=None):
        self._library, self._handle = library, ctypes.c_void_p()
        library.call(
            "fattn_plan_from_text",
            text.encode(),
            device.encode(),
            kernel.encode() if kernel else None,
            ctypes.byref(self._handle),
        )
        name, workspace, flops = ctypes.c_char_p(), ctypes.c_size_t(), ctypes.c_double()
        library.call("fattn_plan_kernel", self._handle, ctypes.byref(name))
        library.call("fattn_plan_workspace_bytes", self._handle, ctypes.byref(workspace))
        library.call("fattn_plan_flops", self._handle, ctypes.byref(flops))
        self.kernel, self.workspace_bytes, self.flops = name.value.decode(), workspace.value, flops.value

    def __del__(self):
        if self._handle:
            self._library.call("fattn_plan_destroy", self._handle)

    def explain(self):
        return self._library.text("fattn_plan_explain", self._handle)

    def traffic(self):
        traffic = Traffic()
        self._library.call("fattn_plan_traffic", self._handle, ctypes.byref(traffic), ctypes.sizeof(traffic))
        return traffic

    def run(self, given, workspace=None, workspace_bytes=0, stream=None):
        """given: what buffers() made; workspace and stream: addresses."""
        self._library.call("fattn_run", self._handle, ctypes.byref(given), workspace, workspace_bytes, stream)
