// Package vm holds the end-to-end tests: the real program, real guests, real kills. Every test that boots a guest is
// called TestVM…, and skips unless SMOLVM_VM_TESTS=1; script/test runs them. TestVMCore… run as root and as a user.
//
// SMOLVM_BIN names the program (default: bin/smolvm of this tree), SMOLVM_HOME its state, shared with nobody that minds
// VMs whose ids begin with "t-".
//
// Layer: tests only; nothing imports it.
package vm
