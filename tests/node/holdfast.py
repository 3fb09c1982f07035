"""Holds one page of every memory block that its memory reaches, as a program with an unfinished splice or direct transfer does.

holdfast.py MEGABYTES: prints the blocks' numbers when they are held, then waits to be killed.
"""
import ctypes, mmap, os, signal, struct, sys

PAGE = 4096
BLOCK = int(open("/sys/devices/system/memory/block_size_bytes").read(), 16)


class Piece(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


size = int(sys.argv[1]) << 20
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
for at in range(0, size, PAGE):
    memory[at] = 1
base = ctypes.addressof(ctypes.c_char.from_buffer(memory))
with open("/proc/self/pagemap", "rb") as pagemap:
    pagemap.seek(base // PAGE * 8)
    entries = struct.unpack(f"<{size // PAGE}Q", pagemap.read(size // PAGE * 8))
pipe_in, pipe_out = os.pipe()
libc = ctypes.CDLL(None, use_errno=True)
held = set()
for index, entry in enumerate(entries):
    block = (entry & ((1 << 55) - 1)) * PAGE // BLOCK
    if block in held:
        continue
    piece = Piece(base + index * PAGE, PAGE)
    if libc.vmsplice(pipe_out, ctypes.byref(piece), ctypes.c_size_t(1), 0) != PAGE:
        sys.exit(f"vmsplice: {os.strerror(ctypes.get_errno())}")
    held.add(block)
print(*sorted(held), flush=True)
signal.pause()
