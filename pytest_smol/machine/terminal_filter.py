"""What a guest may send to the user's terminal, and the key that always takes the terminal back.

A terminal interprets more than text and cursor movements. Control strings (ECMA-48, 5.6: OSC, DCS, APC, PM
and SOS) set its title, write the clipboard (OSC 52) or make it answer as if the user had typed. Some window
operations (CSI ... t) make it report text that the guest has set, and CSI ... i prints. Debuggers, shells and
full-screen editors need none of them, so they are dropped. Pure: no I/O.
"""

from __future__ import annotations

import codecs

__all__ = ["ESCAPE_KEY", "EscapeKey", "TerminalFilter"]

#: Ctrl-], as telnet(1) has it; typed twice in a row it ends the talk with the guest.
ESCAPE_KEY = b"\x1d"

#: What begins a control string: the byte after ESC, or the C1 control (U+0080 to U+009F).
_STRING_STARTS_7_BIT = frozenset("PX]^_")
_STRING_STARTS_8_BIT = frozenset("\x90\x98\x9d\x9e\x9f")

_ESC = "\x1b"
_CSI = "\x9b"
_STRING_TERMINATOR = "\x9c"

#: CAN and SUB abort any sequence (ECMA-48, 8.3.6 and 8.3.148); xterm also ends an OSC at BEL.
_ABORTS = frozenset("\x18\x1a")
_BELL = "\x07"

#: Final characters of control sequences that are dropped: media copy and window operations.
_DROPPED_FINALS = frozenset("it")

#: The longest control sequence that is passed on, in characters; a longer one is dropped.
_LONGEST_SEQUENCE = 256


class TerminalFilter:
    """Passes on text and harmless sequences; a sequence may come in any number of pieces.

    Bytes that are no UTF-8 are passed on, but for those that a terminal could take for C1 controls.
    """

    def __init__(self) -> None:
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._state = self._text
        self._sequence = ""

    def feed(self, data: bytes) -> bytes:
        """What of ``data`` is written to the terminal now."""
        passed = [self._state(_as_control(character)) for character in self._decode(data)]
        return "".join(passed).encode("utf-8", "surrogateescape")

    # Each state takes one character, gives what is passed on, and may change the state.

    def _text(self, character: str) -> str:
        if character == _ESC:
            self._state, self._sequence = self._escape, character
            return ""
        if character == _CSI:
            self._state, self._sequence = self._control_sequence, "\x1b["
            return ""
        if character in _STRING_STARTS_8_BIT:
            self._state = self._string
            return ""
        return "" if "\x80" <= character <= "\x9f" else character

    def _escape(self, character: str) -> str:
        if character in _STRING_STARTS_7_BIT:
            self._state = self._string
            return ""
        if character == "[":
            self._state, self._sequence = self._control_sequence, self._sequence + character
            return ""
        if " " <= character <= "/":  # an intermediate character: the sequence goes on
            return self._longer(character)
        return self._ended(character)

    def _control_sequence(self, character: str) -> str:
        if " " <= character <= "?":
            return self._longer(character)
        if character in _DROPPED_FINALS:
            self._state = self._text
            return ""
        return self._ended(character)

    def _longer(self, character: str) -> str:
        self._sequence += character
        if len(self._sequence) > _LONGEST_SEQUENCE:
            self._state = self._text
        return ""

    def _ended(self, character: str) -> str:
        self._state = self._text
        if character == _ESC or character in _ABORTS or "\x80" <= character <= "\x9f":
            return self._text(character)  # it was cut short by another
        if character < " ":  # a terminal obeys a control character within a sequence
            return character
        return self._sequence + character

    def _string(self, character: str) -> str:
        if character == _ESC:  # of "ESC \", or of whatever cuts the string short
            self._state, self._sequence = self._after_string, character
        elif character in (_STRING_TERMINATOR, _BELL) or character in _ABORTS:
            self._state = self._text
        return ""

    def _after_string(self, character: str) -> str:
        self._state = self._text
        return "" if character == "\\" else self._escape(character)


def _as_control(character: str) -> str:
    """A byte that is no UTF-8 as the C1 control that a terminal without UTF-8 takes it for, if it is one."""
    code = ord(character)
    return chr(code - 0xDC00) if 0xDC80 <= code < 0xDCA0 else character


class EscapeKey:
    """Looks for :data:`ESCAPE_KEY` twice in a row in what the user types."""

    def __init__(self) -> None:
        self._held = False

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """What of ``data`` goes to the guest, and whether the user typed the key twice.

        One key is held back until the next shows which it is.
        """
        if self._held:
            data, self._held = ESCAPE_KEY + data, False
        typed, escaped, _ = data.partition(ESCAPE_KEY * 2)
        if escaped:
            return typed, True
        if data.endswith(ESCAPE_KEY):
            self._held = True
            return data[:-1], False
        return data, False
