"""Makes an emulated machine forget translations of code that is not there any more.

QEMU 7.2 with several emulating threads may keep a translation that one CPU made while another wrote the code (later versions lock the page
before they translate). Kernels patch themselves through a breakpoint (int3), so its CPUs may then run into a breakpoint for ever that
memory does not hold: all is well but for the emulator. Writing the same bytes again, through the debugger's port, drops the translation.
Protocol: GDB remote serial protocol (GDB manual, appendix E), of which this speaks what QEMU needs.
"""
import socket

ROUNDS = 12  # looks at where each CPU is; a loop through a breakpoint handler is met at the breakpoint in every second or third
AROUND = 16  # bytes written again, from a CPU's instruction pointer on: an instruction's longest form


class Debugger:
    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(5)
        self.socket.connect(path)
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.send("D")  # the machine runs on; it would not if the port were just closed
        self.socket.close()

    def byte(self):
        if not self.buffer:
            self.buffer = self.socket.recv(65536)
            if not self.buffer:
                raise OSError("the debugger's port was closed")
        first, self.buffer = self.buffer[:1], self.buffer[1:]
        return first

    def send(self, text):
        data = text.encode()
        self.socket.sendall(b"$" + data + b"#%02x" % (sum(data) & 0xFF))

    def answer(self):
        while self.byte() != b"$":
            pass
        data = b""
        while (char := self.byte()) != b"#":
            data += char
        self.byte(), self.byte()
        self.socket.sendall(b"+")
        return data.decode()

    def ask(self, text):
        self.send(text)
        while (answer := self.answer()).startswith("T"):  # that the machine stopped, because we came
            pass
        return answer

    def cpus(self):
        found, more = [], self.ask("qfThreadInfo")
        while more.startswith("m"):
            found += more[1:].split(",")
            more = self.ask("qsThreadInfo")
        return found

    def write_again(self):
        """What the CPUs are about to execute. Returns one `CPU: address` for each place."""
        places = []
        for cpu in self.cpus():
            self.ask(f"Hg{cpu}")
            registers = self.ask("g")
            rip = int.from_bytes(bytes.fromhex(registers[16 * 16:17 * 16]), "little")  # after the sixteen general registers
            bytes_there = self.ask(f"m{rip:x},{AROUND:x}")
            if not bytes_there.startswith("E") and self.ask(f"M{rip:x},{AROUND:x}:{bytes_there}") == "OK":
                places.append(f"CPU {int(cpu, 16) - 1} at {rip:#x}")
        return places

    def run_a_moment(self):
        self.send("c")
        try:
            self.socket.settimeout(0.05)
            self.answer()
        except socket.timeout:
            self.socket.settimeout(5)
            self.socket.sendall(b"\x03")
            self.answer()
        finally:
            self.socket.settimeout(5)


def forget(path):
    """Returns where the CPUs were; OSError when there is no debugger's port to speak to."""
    places = []
    with Debugger(path) as debugger:
        for _ in range(ROUNDS):
            places += debugger.write_again()
            debugger.run_a_moment()
    return sorted(set(places))
