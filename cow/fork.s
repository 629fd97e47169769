// An assembly file, though empty, lets fork_unsafe.go declare the runtime's functions without bodies.
