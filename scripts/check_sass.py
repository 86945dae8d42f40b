#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Reads what ptxas said about every kernel and what it made of it.

    scripts/check_sass.py OBJECT... [--cuobjdump PATH] [--require-sass]

For each object with a log beside it (OBJECT.ptxas.log, kept by cmake/ptxas_log.sh) prints registers, barriers, stack and
spills of its kernels, and exits 1 when
  * ptxas says that it serialised wgmma or ignored setmaxnreg (C7508 to C7520; it calls that "info"),
  * a kernel of an sm90 row has no wgmma,
  * a loop that issues wgmma, and holds no smaller one that does, touches local memory (LDL, STL),
  * an arrival at a barrier stands behind ldmatrix loads that nothing has waited for: it overtakes them, and who waits at
    the barrier may overwrite what they are to read.
The last three read the machine code through cuobjdump, which needs nvdisasm beside it or in PATH. Without it they are left
out and said to be, or fail with --require-sass."""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

HARMLESS = {"C7519"}  # "warpgroup.arrive is injected": a fence that costs nothing
MESSAGE = re.compile(r"\((C75\d\d)\)[^\n]*")
ENTRY = re.compile(r"Compiling entry function '([^']+)'")
FUNCTION = re.compile(r"Function : (\S+)")
ENCODING = re.compile(r"^\s*/\* (0x[0-9a-f]+) \*/\s*$")
INSTRUCTION = re.compile(r"/\*([0-9a-f]{4,})\*/\s+(@!?U?P\w+\s+)?([A-Z0-9_.]+)([^;]*);")


def short(name):
    """A mangled name without namespaces and parameters; of a row's kernel, the row's name."""
    if not shutil.which("c++filt"):
        return name
    text = subprocess.run(["c++filt", name], capture_output=True, text=True, check=True).stdout.strip()
    text = re.sub(r"\([\w:]+\)\s*(\d+)", r"\1", text)  # (type)0 of an enumerator
    text = re.sub(r"\(anonymous namespace\)::", "", text)
    text = re.sub(r"^.*? (?=\w+::)", "", text).split("(")[0]
    text = re.sub(r"\w+::", "", text)
    row = re.search(r"<(sm\d+_\w+)>", text)
    return row.group(1) if row else text


def read_log(text):
    """{mangled name: dict of numbers}, [complaints]."""
    complaints = [m.group(0).strip() for m in MESSAGE.finditer(text) if m.group(1) not in HARMLESS]
    kernels = {}
    for part in re.split(r"(?=ptxas info\s+: Compiling entry function)", text):
        entry = ENTRY.search(part)
        if not entry:
            continue

        def number(pattern):
            found = re.search(pattern, part)
            return int(found.group(1)) if found else 0

        kernels[entry.group(1)] = {
            "registers": number(r"Used (\d+) registers"),
            "barriers": number(r"used (\d+) barriers"),
            "stack": number(r"(\d+) bytes stack frame"),
            "stores": number(r"(\d+) bytes spill stores"),
            "loads": number(r"(\d+) bytes spill loads"),
        }
    return kernels, complaints


def read_sass(text):
    """{mangled name: [(address, opcode, operands, has a predicate)]}."""
    functions = {}
    code = None
    for line in text.splitlines():
        if found := FUNCTION.search(line):
            code = functions.setdefault(found.group(1), [])
        elif code is not None and (found := INSTRUCTION.search(line)):
            code.append((int(found.group(1), 16), found.group(3), found.group(4), bool(found.group(2))))
    return functions


def read_controls(text):
    """{mangled name: {address: control bits}}. The second half of an instruction says, from bit 41: stall, yield, scoreboard
    to set, scoreboard to free, mask of those to wait for."""
    functions, controls, address = {}, {}, None
    for line in text.splitlines():
        if found := FUNCTION.search(line):
            controls = functions.setdefault(found.group(1), {})
        elif found := INSTRUCTION.search(line):
            address = int(found.group(1), 16)
        elif address is not None and (half := ENCODING.search(line)):
            controls[address] = int(half.group(1), 16) >> 41
            address = None
    return functions


def arrivals_before_loads(text):
    """{mangled name: arrivals that some path reaches behind an LDSM whose scoreboard nothing on it has waited for}."""
    found, controls = {}, read_controls(text)
    for name, code in read_sass(text).items():
        blocks = blocks_of(code)
        pending_at = dict.fromkeys(blocks, frozenset())  # (scoreboard, LDSM) on some path to the block
        places, work = set(), sorted(blocks)
        while work:
            leader = work.pop(0)
            pending = pending_at[leader]
            instructions, successors = blocks[leader]
            for address, opcode, *_ in instructions:
                control = controls[name].get(address, 0)
                pending = frozenset(load for load in pending if not control >> (11 + load[0]) & 1)
                if opcode.startswith("SYNCS.ARRIVE") and pending:
                    places.add((address, max(at for _, at in pending)))
                if opcode.startswith("LDSM") and (board := control >> 5 & 7) != 7:
                    pending |= {(board, address)}
            for successor in successors:
                if not pending <= pending_at[successor]:
                    pending_at[successor] |= pending
                    work.append(successor)
        if places:
            found[name] = [f"0x{arrival:04x} behind 0x{load:04x}" for arrival, load in sorted(places)]
    return found


def is_wgmma(opcode):
    return opcode.split(".")[0] in ("HGMMA", "QGMMA", "IGMMA", "BGMMA")


def blocks_of(code):
    """Basic blocks: {first address: (instructions, successors)}."""
    addresses = [address for address, *_ in code]
    following = dict(zip(addresses, addresses[1:]))

    def target(opcode, operands):
        found = re.search(r"0x([0-9a-f]+)\s*$", operands.strip())
        return int(found.group(1), 16) if opcode.startswith("BRA") and found else None

    leaders = {addresses[0]} if addresses else set()
    for address, opcode, operands, _ in code:
        goal = target(opcode, operands)
        if goal is not None:
            leaders.add(goal)
        if opcode.startswith(("BRA", "EXIT", "RET", "BRX")) and address in following:
            leaders.add(following[address])
    blocks, current = {}, None
    for instruction in code:
        if instruction[0] in leaders:
            current = blocks.setdefault(instruction[0], ([], []))
        current[0].append(instruction)
    for instructions, successors in blocks.values():
        address, opcode, operands, predicate = instructions[-1]
        goal = target(opcode, operands)
        if goal in blocks:
            successors.append(goal)
        always = not predicate and opcode.split(".")[0] in ("BRA", "EXIT", "RET") and "," not in operands
        if not always and address in following:
            successors.append(following[address])
    return blocks


def loops_of(blocks):
    """Natural loops as sets of blocks: an edge back to a block that every path to it passes."""
    order = sorted(blocks)
    before = {block: [] for block in order}
    for block, (_, successors) in blocks.items():
        for successor in successors:
            before[successor].append(block)
    passed = {block: set(order) for block in order}  # the blocks that every path from the start to it passes
    if order:
        passed[order[0]] = {order[0]}
    changed = True
    while changed:
        changed = False
        for block in order[1:]:
            common = set.intersection(*[passed[b] for b in before[block]]) if before[block] else set()
            if (found := common | {block}) != passed[block]:
                passed[block], changed = found, True
    loops = {}
    for block, (_, successors) in blocks.items():
        for head in successors:
            if head not in passed[block]:
                continue
            body, todo = loops.setdefault(head, {head}), [block]
            while todo:
                if (b := todo.pop()) not in body:
                    body.add(b)
                    todo += before[b]
    return list(loops.values())


def local_memory_in_main_loops(code):
    """Loads and stores of local memory in loops that issue wgmma and hold no smaller loop that does."""
    blocks = blocks_of(code)
    working = [loop for loop in loops_of(blocks) if any(is_wgmma(i[1]) for b in loop for i in blocks[b][0])]
    inner = [loop for loop in working if not any(other < loop for other in working)]
    found = {i for loop in inner for b in loop for i in blocks[b][0] if i[1].split(".")[0] in ("LDL", "STL")}
    return [f"{opcode} at {address:#x}" for address, opcode, *_ in sorted(found)]


def find_cuobjdump(given):
    for candidate in (given, os.environ.get("CUOBJDUMP"), shutil.which("cuobjdump")):
        if candidate and os.access(candidate, os.X_OK):
            beside = pathlib.Path(candidate).resolve().parent / "nvdisasm"
            if beside.exists() or shutil.which("nvdisasm") or os.environ.get("NVDISASM_PATH"):
                return candidate
    return None


def check(objects, cuobjdump, out=print):
    """The complaints about all objects; prints the table."""
    complaints, rows = [], []
    for path in objects:
        log = pathlib.Path(str(path) + ".ptxas.log")
        if not log.exists():
            continue
        kernels, messages = read_log(log.read_text(errors="replace"))
        complaints += [f"{pathlib.Path(path).name}: {message}" for message in messages]
        functions = {}
        if cuobjdump and kernels:
            sass = subprocess.run([cuobjdump, "-sass", str(path)], capture_output=True, text=True, check=True)
            functions = read_sass(sass.stdout)
            complaints += [f"{short(name)}: an arrival overtakes ldmatrix: " + ", ".join(places[:8])
                           for name, places in arrivals_before_loads(sass.stdout).items()]
        for name, numbers in kernels.items():
            code = functions.get(name)
            products = "-"
            if cuobjdump and code is None:
                complaints.append(f"{short(name)}: not found in the machine code of {path}")
            elif code is not None:
                products = sum(is_wgmma(opcode) for _, opcode, *_ in code)
                if short(name).startswith("sm90_") and products == 0:
                    complaints.append(f"{short(name)}: issues no wgmma")
                found = local_memory_in_main_loops(code)
                if found:
                    complaints.append(f"{short(name)}: local memory in a main loop: " + ", ".join(found[:8]))
            rows.append((short(name), numbers["registers"], numbers["barriers"], numbers["stack"], numbers["stores"],
                         numbers["loads"], products, len(code) if code else "-"))
    titles = ("kernel", "registers", "barriers", "stack", "spill stores", "spill loads", "wgmma", "instructions")
    widths = [max(len(str(row[i])) for row in [titles, *rows]) for i in range(len(titles))]
    for row in [titles, *sorted(rows, key=str)]:
        out("  ".join(str(cell).rjust(width) if i else str(cell).ljust(width)
                      for i, (cell, width) in enumerate(zip(row, widths))))
    if not rows:
        complaints.append("no object has a .ptxas.log with a kernel in it")
    return complaints


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("objects", nargs="+", metavar="OBJECT")
    parser.add_argument("--cuobjdump", help="default: $CUOBJDUMP, then PATH")
    parser.add_argument("--require-sass", action="store_true", help="fail where there is no cuobjdump")
    arguments = parser.parse_args()
    cuobjdump = find_cuobjdump(arguments.cuobjdump)
    complaints = check(arguments.objects, cuobjdump)
    if not cuobjdump:
        print("machine code not read: no cuobjdump with nvdisasm (PATH, or the wheels nvidia-cuda-cuobjdump and "
              "nvidia-cuda-nvdisasm)")
        if arguments.require_sass:
            complaints.append("--require-sass and no cuobjdump")
    for complaint in complaints:
        print("error:", complaint, file=sys.stderr)
    return 1 if complaints else 0


if __name__ == "__main__":
    sys.exit(main())
