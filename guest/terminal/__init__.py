"""The test process's streams and terminals: markers in output, pseudo-terminals, debuggers, the pump."""
